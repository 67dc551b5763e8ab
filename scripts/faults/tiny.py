"""The experiments, so small that a run takes a second or two."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ALIKE = {  # Another experiment has the same parts, in other sizes or on other digits.
    *("autoencoder_mnist", "made_mnist", "pixel_cnn_mnist", "rbm_mnist", "real_nvp_mnist"),
    "pacdcgan_stacked_mnist",
    *("vae_mnist_long", "vae_mnist_paper", "wgan_gp_mnist_paper", "resnet20_cifar10_paper"),
    "pix2pix_shapes_paper",
    *("gin_proteins", "gin_nci1", "gin_random_graphs", "gin_atlas"),
    *("gatv2_cora", "sage_cora", "appnp_cora", "sgc_cora", "cheb_cora", "gcnii_cora", "mlp_cora"),
    "molecular_fingerprint_mutag",
    *("deep_multiset_proteins", "molecular_fingerprint_nci1"),
    *("gcn_block_model", "knn_digits", "gin_triangles", "deepwalk_les_miserables"),
    *("flow_matching_ring", "real_nvp_ring", "gan_grid", "pacgan_grid", "pixel_cnn_digits"),
    *("joint_autoencoder_digits", "multi_task_penguins", "consistency_digits"),
    *("huber_diabetes", "quantile_diabetes", "gaussian_nll_diabetes", "quantile_noisy_curve"),
    *("svm_digits", "kernel_svm_digits", "cnn_digits", "lasso_diabetes", "logistic_breast_cancer"),
    *("rnn_sentence_polarity", "distil_mnist", "ensemble_digits", "mlp_diabetes"),
    *("mc_dropout_digits", "speedrun_cifar10", "gpt2_124m_speed"),
}
EXPERIMENTS = sorted(
    {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")} - ALIKE
)
STEPS = 24
SHRUNK = [
    "trainer.epochs=null",
    f"trainer.steps={STEPS}",
    "trainer.evaluate_every=null",
    "trainer.limit_train_batches=8",
    "trainer.limit_eval_batches=2",
    "trainer.log_every=2",
    "trainer.device=cpu",
    "trainer.threads=1",
    "callbacks.checkpoint.every_steps=3",
    "logger.graph=false",
    "logger.images_every=0",
    "logger.console=lines",
]
# Only to be quicker: what is tested of them does not depend on their size.
SMALLER = {
    "bert_shakespeare": [
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=32", "model.num_layers=1"),
        "data.sequence_length=8",
    ],
    "adding_problem": [
        *("data.length=20", "data.num_samples=400", "data.eval_samples=64"),
        *("model.hidden_size=8", "model.memory_length=20"),
    ],
    "tcn_adding": [
        *("data.length=20", "data.num_samples=400", "data.eval_samples=64"),
        "model.hidden_channels=[4,4]",
    ],
    **{
        name: ["data.num_samples=600", "data.eval_samples=64", "model.hidden_size=8"]
        for name in ("parity_lstm", "sine_forecasting", "sine_synthesis")
    },
    **{
        name: [
            *("model.embed_dim=16", "model.num_layers=1", "model.num_heads=2"),
            *("data.sequence_length=16", "data.batch_size=4", "task.sample_length=20"),
        ]
        for name in ("gpt_shakespeare", "gpt_shakespeare_small")
    },
    "llama_shakespeare": [
        *("model.embed_dim=16", "model.num_layers=1", "model.num_heads=2"),
        *("model.num_kv_heads=2", "model.mlp_dim=24"),
        *("data.sequence_length=16", "data.batch_size=4", "task.sample_length=20"),
    ],
    "gcnii_cora": ["model.num_layers=4"],
    "gru_shakespeare": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=20"],
    "transformer_multi30k": [
        *("data.limit=128", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "seq2seq_attention_multi30k": [
        *("data.limit=128", "data.batch_size=8", "task.teacher_forcing=0.5"),
        *("model.embed_dim=8", "model.hidden_size=8"),
    ],
    "copy_seq2seq": [
        *("data.num_samples=500", "data.batch_size=8", "model.embed_dim=8", "model.hidden_size=8"),
    ],
    "reverse_transformer": [
        *("data.num_samples=500", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "sort_transformer": [
        *("data.num_samples=500", "data.batch_size=8"),
        *("model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "word2vec_text": ["model.embed_dim=8", "data.batch_size=32"],
    **{
        name: [
            *("model.channels=[4,4]", "model.num_groups=2", "model.attention_sizes=[]"),
            *("data.batch_size=16", "task.sampling_steps=3"),
        ]
        for name in ("ddpm_digits", "diffusion_mnist", "flow_matching_digits")
    },
    "ddpm_cifar10": [
        *("model.channels=[4,4]", "model.num_groups=2", "model.attention_sizes=[]"),
        *("data.batch_size=8", "task.sampling_steps=3", "data.folder=cifar10_images"),
    ],
    "gan_digits": ["model.hidden_sizes=[32]", "model.maxout_sizes=[16]"],
    "autoencoder_mnist": ["model.hidden_sizes=[16]"],
    "convolutional_autoencoder_mnist": ["model.hidden_channels=[2,2]"],
    **{
        f"{kind}_autoencoder_mnist": ["model.latent_dim=8", "data.batch_size=16"]
        for kind in ("contractive", "denoising", "sparse")
    },
    **{
        name: ["model.hidden_size=8", "task.sample_steps=10", "task.persistent=true"]
        for name in ("rbm_digits", "rbm_mnist")
    },
    **{name: ["model.hidden_sizes=[32]"] for name in ("made_digits", "made_mnist")},
    **{
        name: ["model.hidden_channels=4", "model.num_blocks=1", "data.batch_size=8"]
        for name in ("pixel_cnn_digits", "pixel_cnn_mnist")
    },
    **{
        name: ["model.hidden_channels=4", "data.batch_size=8"]
        for name in ("real_nvp_digits", "real_nvp_mnist")
    },
    "pix2pix_shapes": ["model.base_channels=2", "data.train_size=40", "data.batch_size=2"],
    "resnet20_cifar10": ["data.batch_size=8", "data.folder=cifar10_images"],
    "resnet_mnist": ["data.batch_size=8"],
    "pgd_mnist": ["data.batch_size=8", "task.steps=2"],
    "shallow_convnet_synthetic": ["model.hidden_channels=4", "data.num_samples=96"],
    "iwae_mnist": ["task.samples=3"],
    "conditional_gan_mnist": [
        *("model.latent_size=8", "model.class_size=8", "model.joint_size=16"),
        *("model.image_units=8", "model.joint_units=8", "data.batch_size=20"),
    ],
    "dcgan_mnist": ["model.base_channels=2", "data.batch_size=16"],
    "stacked_mnist": [
        *("model.base_channels=2", "data.batch_size=16"),
        *("data.num_samples=1000", "data.val_samples=100", "data.test_samples=100"),
    ],
    "sage_large": [
        *("data.num_nodes=3000", "data.num_links=9000", "data.train_size=600"),
        *("data.val_size=100", "data.test_size=100", "data.batch_size=32"),
    ],
    "textcnn_sentence_polarity": [
        *("model.embed_dim=8", "model.num_filters=4", "data.batch_size=8", "data.min_frequency=20"),
    ],
    "unet_isbi2012": ["model.base_channels=2", "data.tile_size=32", "data.batch_size=4"],
    "unet_shapes": ["model.base_channels=2", "data.batch_size=4"],
    "lstm_stdlib": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=20"],
    "lstm_shakespeare": ["model.embed_dim=16", "model.hidden_size=16", "task.sample_length=20"],
}


TEACHERS = {  # Of these the run of another experiment is the teacher.
    "distil_digits": ["experiment=lenet_digits", "data.image_size=8", "model=softmax_regression"],
    "noisy_student_digits": ["experiment=noisy_student_digits", "task=classification"],
}
MADE_UP = {  # No experiments: images that two processes load, and two processes with shards.
    "pictures": [
        *("data=image_folder", "data.image_size=8", "data.in_channels=1", "data.in_memory=false"),
        *("data.batch_size=8", "data.num_workers=2", "data.augment=crop_flip"),
        "model=softmax_regression",
    ],
    "shards": ["experiment=lenet_digits", "trainer.strategy=fsdp"],
}


def words(name: str, runs: Path) -> list[str]:
    """The words of a tiny run of an experiment below a folder of runs."""
    begin = MADE_UP.get(name, [f"experiment={name}"])
    return [*begin, *SHRUNK, *SMALLER.get(name, []), f"paths.runs_dir={runs}"]


def needs_files(name: str) -> bool:
    """Whether the data of an experiment have to be downloaded: then they have a `root`."""
    if name in MADE_UP:
        return False
    experiment = yaml.safe_load((ROOT / "configs" / "experiment" / f"{name}.yaml").read_text())
    chosen = [e["override /data"] for e in experiment["defaults"] if "override /data" in e]
    data = yaml.safe_load((ROOT / "configs" / "data" / f"{chosen[-1]}.yaml").read_text())
    return "root" in data | data.get("graph", {}) | experiment.get("data", {})
