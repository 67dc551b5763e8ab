"""Wrong command lines: one line that names the key, the value and the way out, and exit code 2."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from zoo.app.place import RunLocation

ROOT = Path(__file__).parents[2]

# What was written, then what the one line must say.
OPTIONS = [
    ("data=digit", "data=digit", "did you mean 'digits'?"),
    ("model=lenet", "model=lenet", "did you mean one of lenet5, lenet5_1998?"),
    ("task=clasification", "task=clasification", "did you mean 'classification'?"),
    ("optimizer=adamm", "optimizer=adamm", "did you mean 'adam'?"),
    ("schedule=cosin", "schedule=cosin", "did you mean one of cosine, cosine_restarts?"),
    ("trainer=defualt", "trainer=defualt", "did you mean 'default'?"),
    ("callbacks=defaults", "callbacks=defaults", "did you mean 'default'?"),
    ("logger=of", "logger=of", "did you mean 'off'?"),
    ("paths=defalt", "paths=defalt", "did you mean 'default'?"),
    ("experiment=lenet_digit", "experiment=lenet_digit", "did you mean 'lenet_digits'?"),
    ("debug=fas", "debug=fas", "did you mean 'fast'?"),
    ("experiment=nope", "experiment=nope", "allowed: ", "autoencoder_digits"),
    ("model=", "no model ''", "allowed: "),
    ("model=null", "model=null", "cannot be left out; one of ", "lenet5"),
    ("trainer=null", "trainer=null", "cannot be left out; one of default"),
    ("~model", "~model", "nothing can be removed", "model=..."),
    ("~trainer.epochs", "~trainer.epochs", "nothing can be removed", "trainer.epochs=..."),
    ("model=[lenet5,mlp]", "model=[lenet5,mlp]", "takes one option; one of ", "lenet5"),
    ("experiment=[lenet_digits,gan_digits]", "experiment=[lenet_digits,gan_digits]", "one option"),
    ("debug=[fast,overfit]", "debug=[fast,overfit]", "one of fast, overfit, profile"),
    ("model={a:1}", "model={a:1}", "takes one option"),
    ("trainer=3", "trainer=3", "one of default"),
    ("model=lenet5 model=mlp", "model=mlp", "given twice", "'model=lenet5'"),
    ("model=mlp/../lenet5", "model=mlp/../lenet5", "did you mean 'lenet5'?"),
    ("experiment=../model/mlp", "experiment=../model/mlp", "allowed: "),
    ("model/mlp=3", "model/mlp=3", "write model.mlp=..."),
    ("model@other=mlp", "model@other"),
]

KEYS = [
    ("sed=3", "sed=3", "did you mean 'seed'?"),
    ("+new.key=1", "+new.key=1", "there is no 'new'", "allowed: "),
    ("+foo=1", "+foo=1", "there is no 'foo'"),
    ("foo@bar=1", "foo@bar=1", "there is no 'foo'"),
    ("trainer.epoch=3", "trainer.epoch=3", "did you mean 'trainer.epochs'?"),
    ("+trainer.typo=1", "trainer.typo=1", "there is no such setting", "allowed: accumulate"),
    ("++trainer.typo=1", "trainer.typo=1", "there is no such setting", "allowed: accumulate"),
    ("callbacks.checkpoint.topk=2", "callbacks.checkpoint.topk=2", "'callbacks.checkpoint.top_k'?"),
    ("callbacks.early_stoping.patience=2", "callbacks.early_stoping={patience: 2}", "stopping'?"),
    ("callbacks.profile.step=2", "callbacks.profile.step=2", "'callbacks.profile.steps'?"),
    ("logger.tensorbord=false", "logger.tensorbord=false", "did you mean 'logger.tensorboard'?"),
    ("paths.run_dir=x", "paths.run_dir='x'", "did you mean 'paths.runs_dir'?"),
    ("data.batchsize=3", "data.batchsize=3", "did you mean 'data.batch_size'?"),
    ("model.num_clases=3", "model.num_clases=3", "did you mean 'model.num_classes'?"),
    ("+model.num_clases=3", "model.num_clases=3", "did you mean 'model.num_classes'?"),
    ("task.label_smooting=0.1", "task.label_smooting=0.1", "did you mean 'task.label_smoothing'?"),
    ("optimizer.lrr=0.1", "optimizer.lrr=0.1", "did you mean 'optimizer.lr'?"),
    ("optimizer.momentum=0.9", "optimizer.momentum=0.9", "torch.optim.AdamW", "betas"),
    ("schedule.warmup=3", "schedule.warmup=3", "did you mean 'schedule.warmup_steps'?"),
    ("experiment=gan_digits optimizer.generator.lrr=1", "'optimizer.generator.lr'?"),
    ("experiment=gan_digits optimizer.generatr.lr=1", "generatr={lr: 1}", "'optimizer.generator'?"),
    ("optimizer=gan optimizer.lr=1", "optimizer.lr=1", "an optimizer for each network"),
    ("optimizer/lr=3", "optimizer/lr=3", "write optimizer.lr=..."),
    ("trainer.epochs=3 trainer.epochs=4", "trainer.epochs=4", "given twice", "'trainer.epochs=3'"),
    ("seed=1 ++seed=2", "++seed=2", "seed is given twice"),
    ("hydra.run.dir=/tmp", "hydra.run.dir=/tmp", "hydra/launcher"),
    ("hydra.mode=MULTIRUN", "hydra.mode=MULTIRUN", "(-m)"),
    ("hydra/launcher=basic", "hydra/launcher=basic", "for sweeps (-m)"),
]

TYPES = [
    ("trainer.epochs=abc", "trainer.epochs='abc'", "an integer or null"),
    ("trainer.epochs=1.5", "trainer.epochs=1.5", "an integer or null"),
    ("trainer.epochs=true", "trainer.epochs=true", "an integer or null"),
    ("trainer.epochs=[1,2]", "trainer.epochs=[1, 2]", "an integer or null"),
    ("trainer.epochs={a:1}", "trainer.epochs={a: 1}", "an integer or null"),
    ("trainer.epochs=", "trainer.epochs=''", "an integer or null"),
    ("trainer.epochs='\"3\"'", "trainer.epochs='3'", "an integer or null"),
    ("trainer.log_every=null", "trainer.log_every=null", "an integer"),
    ("trainer.compile=yes_please", "trainer.compile='yes_please'", "true or false"),
    ("trainer.compile=1", "trainer.compile=1", "true or false"),
    ("trainer.clip_norm=big", "trainer.clip_norm='big'", "a number or null"),
    ("trainer.channels_last=abc", "trainer.channels_last='abc'", "auto or true or false"),
    ("trainer.precision=bf61", "trainer.precision='bf61'", "fp32", "did you mean 'bf16'?"),
    ("trainer.device=3", "trainer.device=3", "text", "quote it"),
    ("trainer.device=tpu", "trainer.device", "'tpu'", "auto, cpu, cuda"),
    ("callbacks.checkpoint.mode=maxx", "callbacks.checkpoint.mode='maxx'", "did you mean 'max'?"),
    ("callbacks.checkpoint=3", "callbacks.checkpoint=3", "a mapping"),
    ("callbacks.extra=null", "callbacks.extra=null", "a mapping"),
    ("callbacks.extra.mine=3", "callbacks.extra.mine=3", "a mapping with _target_"),
    ("logger.console=bars", "logger.console='bars'", "did you mean 'bar'?"),
    ("logger.tensorboard=null", "logger.tensorboard=null", "true or false"),
    ("paths.runs_dir=null", "paths.runs_dir=null", "text"),
    ("paths.runs_dir=[a]", "paths.runs_dir=['a']", "text"),
    ("seed=null", "seed=null", "an integer"),
    ("name=3", "name=3", "text", "quote it"),
    ("data.batch_size=abc", "data.batch_size='abc'", "an integer"),
    ("data.scaling=standart", "data.scaling='standart'", "did you mean 'standard'?"),
    ("model.num_classes=abc", "model.num_classes='abc'", "an integer or auto"),
    ("model.num_classes=10.0", "model.num_classes=10.0", "an integer or auto"),
    ("model.num_classes=null", "model.num_classes=null", "an integer or auto"),
    ("model=mlp model.hidden_sizes=3", "model.hidden_sizes=3", "a list"),
    ("model=mlp model.hidden_sizes=[256,abc]", "model.hidden_sizes[1]='abc'", "an integer"),
    ("model=mlp model.activation=rellu", "model.activation='rellu'", "did you mean 'relu'?"),
    ("task.class_names=3", "task.class_names=3", "text", "null", "auto"),
    ("optimizer.lr=abc", "optimizer.lr='abc'", "a number"),
    ("optimizer.lr=true", "optimizer.lr=true", "a number"),
    ("optimizer.lr=auto", "optimizer.lr='auto'", "a number"),
    ("optimizer.betas=0.9", "optimizer.betas=0.9", "a list of 2"),
    ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]", "a list of 2"),
    ("optimizer.betas=[0.9,abc]", "optimizer.betas[1]='abc'", "a number"),
    ("optimizer.l1=abc", "optimizer.l1='abc'", "a number"),
    ("optimizer.max_norm=big", "optimizer.max_norm='big'", "a number or null"),
    ("model=cnn model.blocks=[16,16]", "model.blocks[0]=16", "a list"),
    ("model=cnn model.init=xavier", "model.init='xavier'", "glorot"),
    ("optimizer.groups={a:3}", "optimizer.groups.a=3", "a mapping"),
    ("optimizer.decay_norms_and_biases=3", "optimizer.decay_norms_and_biases=3", "true or false"),
    (
        "schedule=step schedule.milestones=abc",
        "schedule.milestones='abc'",
        "a list (each a number)",
    ),
    ("callbacks.checkpoint.monitor=3", "callbacks.checkpoint.monitor=3", "text"),
]

NOT_FINITE = [
    ("optimizer.lr=nan", "optimizer.lr=nan", "a finite number"),
    ("optimizer.lr=inf", "optimizer.lr=inf", "a finite number"),
    ("optimizer.lr=-inf", "optimizer.lr=-inf", "a finite number"),
    ("optimizer.lr=1e999", "optimizer.lr=inf", "a finite number"),
    ("trainer.clip_norm=nan", "trainer.clip_norm=nan", "a finite number"),
    ("optimizer.betas=[nan,0.9]", "optimizer.betas[0]=nan", "a finite number"),
]

RANGES = [
    ("trainer.epochs=0", "trainer.epochs", "at least 1, not 0"),
    ("trainer.steps=-3", "trainer.steps", "at least 1, not -3"),
    ("trainer.epochs=null", "trainer.epochs and steps must not both be null"),
    ("trainer.accumulate=0", "trainer.accumulate", "at least 1, not 0"),
    ("trainer.clip_norm=0", "trainer.clip_norm", "greater than 0, not 0.0"),
    ("trainer.ema_decay=2", "trainer.ema_decay", "between 0 and 1, not 2.0"),
    ("trainer.limit_train_batches=0", "trainer.limit_train_batches", "at least 1, not 0"),
    ("callbacks.checkpoint.top_k=0", "callbacks.checkpoint.top_k", "at least 1, not 0"),
    ("callbacks.early_stopping.patience=0", "callbacks.early_stopping.patience", "not 0"),
    ("seed=-1", "seed", "from 0 to 4294967295, not -1"),
    ("seed=4294967296", "seed", "from 0 to 4294967295, not 4294967296"),
    ("name=a/b", "name must have no '/'", "'a/b'"),
    ("name=..", "name must have no '/'", "'..'"),
]

TARGETS = [
    ("model._target_=os.system", "model._target_=os.system", "zoo., torch.optim., torch.nn."),
    ("model._target_=builtins.eval", "model._target_=builtins.eval", "only what is under zoo."),
    ("model._target_=subprocess.run", "model._target_=subprocess.run", "only what is under zoo."),
    ("model._target_=torch.hub.load", "model._target_=torch.hub.load", "only what is under zoo."),
    ("model._target_=torch.load", "model._target_=torch.load", "trusted=[my_package]"),
    ("model._target_=zooo.models.mlp.MLP", "zooo.models.mlp.MLP", "only what is under zoo."),
    ("model._target_=zoo.training.run_folder.os.system", "run_folder.os.system", "not a builtin"),
    ("model._target_=zoo.training.run_folder.subprocess.run", "defined in subprocess"),
    ("model._target_=torch.nn.modules.module.functools.partial", "defined in functools"),
    ("model._target_=torch.nn.modules.module.torch.load", "defined in torch.serialization"),
    ("model._target_=zoo.models.mlp.MLP.__init__", "makes NoneType", "Module is needed"),
    ("model._target_=zoo.models.mlp.MLP.__class__", "defined in builtins"),
    ("model._target_=zoo.app.main.main", "makes int", "torch.nn.modules.module.Module"),
    ("optimizer._target_=torch.optim.lr_scheduler.StepLR", "makes StepLR", "Optimizer is needed"),
    ("optimizer._target_=zoo.models.mlp.MLP", "makes MLP", "Optimizer is needed"),
    ("model._target_=torch.optim.AdamW", "makes AdamW", "Module is needed"),
    ("data._target_=zoo.models.mlp.MLP", "makes MLP", "zoo.data.module.DataModule is needed"),
    (
        "task._target_=zoo.data.images.digits.Digits",
        "makes Digits",
        "zoo.tasks.task.Task is needed",
    ),
    ("schedule._target_=torch.optim.AdamW", "makes AdamW", "Schedule is needed"),
    (
        "callbacks.extra.mine._target_=zoo.models.mlp.MLP",
        "callbacks.extra.mine",
        "Callback is needed",
    ),
    ("callbacks.extra.mine._target_=os.system", "callbacks.extra.mine._target_=os.system"),
    ("model._target_=zoo.models.mlp._check", "model._target_=zoo.models.mlp._check"),
    ("model._target_=torch.nn.functional.relu", "makes Tensor", "Module is needed"),
    ("model._target_=torch.nn.Module", "model.num_classes='auto'", "no such argument"),
    ("model._target_=zoo.models", "model._target_=zoo.models", "not a module"),
    ("model._target_=zoo", "model._target_=zoo", "a dotted name such as my_package.nets.Net"),
    ("model._target_=", "model._target_=", "a dotted name"),
    ("model._target_=3", "model._target_=3", "a dotted name"),
    ("model._target_=null", "model._target_=null", "a dotted name"),
    ("model._target_=zoo.models.vision.lenet.lenet6", "'lenet6'", "did you mean 'lenet5'?"),
    ("model._target_=zoo.models.vision.lennet.lenet5", "'lennet'", "did you mean 'lenet'?"),
    ("model._target_=zoo.model.mlp.MLP", "no 'model' in zoo", "did you mean 'models'?"),
    ("trusted=[nowhere_to_be_found] model._target_=nowhere_to_be_found.Net", "PYTHONPATH"),
    ("task.model=abc", "task.model='abc'", "given by the run itself"),
    ("task.vocabulary=abc task=language_modeling", "task.vocabulary=", "given by the run itself"),
    ("optimizer.params=[1]", "optimizer.params=[1]", "given by the run itself"),
    # What stands inside an argument must be of the argument's class; no function is called for a
    # number, a path or a text.
    ("model.num_classes._target_=os.system", "model.num_classes", "an integer or auto"),
    ("model.num_classes={_target_:zoo.app.failures.report,error:x}", "model.num_classes={_target_"),
    ("data.split_seed={_target_:zoo.app.main.main}", "data.split_seed={_target_", "an integer"),
    ("schedule=step schedule._target_=zoo.training.schedules.Cosine", "schedule.milestones=[100"),
    ("schedule._target_=zoo.training.schedules.InverseSquareRoot", "schedule.final=0.0"),
    ("data=image_folder data.root=null", "data.root"),
]

WORDS = [
    ("--bogus", "--bogus", "no such flag", "--help"),
    ("-x", "-x", "no such flag"),
    ("--multirn", "--multirn", "did you mean '--multirun'?"),
    ("--help=3", "--help=3", "takes no value"),
    ("--cfg", "--cfg", "needs a value, such as --cfg job"),
    ("--cfg all", "--cfg all", "must be job"),
    ("--cfg job -m seed=1,2", "--cfg job", "omit -m"),
    ("--config-dir", "--config-dir", "needs a value"),
    ("--config-dir nowhere", "--config-dir nowhere", "no such folder"),
    ("-m -m", "-m", "given twice"),
    ("model", "'model'", "not of the form key=value"),
    ("trainer.epochs", "'trainer.epochs'", "not of the form key=value"),
    ("=3", "'=3'", "not of the form key=value"),
    ("'a b c'", "'a b c'", "not of the form key=value"),
    ("trainer.epochs=[1", "'trainer.epochs=[1'", "not of the form key=value"),
    ("paths.runs_dir=a=b", "'paths.runs_dir=a=b'", "quote values"),
    ("'name=\"a\nb\"'", "name"),
    ("resume=", "resume=", "resume=<value> or omit it"),
    ("resume=nowhere", "resume=nowhere", "no such folder"),
    ("resume=.", "not a run folder", "config.yaml"),
    ("resume=a resume=b", "resume=b", "given twice"),
    ("resume=. -m", "--multirun", "omit --multirun"),
    ("resume=. --config-dir .", "--config-dir", "omit --config-dir"),
    ("trusted=", "trusted=", "trusted=[my_package]"),
    ("trusted=[]", "trusted=[]", "trusted=[my_package]"),
    ("trusted=[1bad]", "trusted=[1bad]", "trusted=[my_package]"),
    ("trusted=[a", "trusted=[a", "trusted=[my_package]"),
    ("trusted=[a,]", "trusted=[a,]", "trusted=[my_package]"),
    ("trusted=a-b", "trusted=a-b", "trusted=[my_package]"),
    ("trusted=[a] trusted=[b]", "trusted=[b]", "given twice"),
    ("trusted=[nowhere.to.be.found]", "trusted=[nowhere.to.be.found]", "no package 'nowhere'"),
    ("callbacks.checkpoint={}", "callbacks.checkpoint={}", "changes nothing", "monitor=...)"),
    ("experiment=gan_ring optimizer.generator={}", "optimizer.generator={}", "changes nothing"),
    (f"seed={'1' * 5000}", "a number has too many digits"),
    ("trusted", "'trusted'", "not of the form key=value"),
    ("'trainer.epochs=${nope}'", "trainer.epochs", "'nope' not found"),
    ("'trainer.epochs=${oc.env:NO_SUCH_VARIABLE}'", "trainer.epochs", "NO_SUCH_VARIABLE"),
    ("'data.batch_size=${data.batch_size}'", "data.batch_size", "Recursive"),
    ("trainer.epochs=???", "trainer.epochs is required", "trainer.epochs=..."),
    ("model=mlp model.hidden_sizes={a:1}", "model.hidden_sizes"),
]

SWEEPS = [
    ("seed=1,2", "seed=1,2", "-m", "seed=[...]"),
    ("model=lenet5,mlp", "model=lenet5,mlp", "-m"),
    ("trainer.epochs=range(1,3)", "trainer.epochs=range(1,3)", "-m"),
    ("-m seed=1,2,abc", "seed='abc'", "an integer", "job 2 of 3", "nothing has been run"),
    ("-m optimizer.lr=0.1,abc,0.2 seed=1,2", "optimizer.lr='abc'", "job 2 of 6"),
    ("-m trainer.epochs=0,1", "trainer.epochs", "not 0", "job 0 of 2"),
    ("-m model=lenet5,mlp,lenett seed=0,1", "no model 'lenett'", "did you mean 'lenet5'?"),
    ("-m model=lenet5,null", "model=lenet5,null", "null"),
    ("-m experiment=null,lenet_digits", "experiment=null,lenet_digits", "null cannot be one of"),
    ("-m model=lenet5,mlp model.hidden_sizes=[3]", "model.hidden_sizes=[3]", "job 0 of 2"),
    ("-m seed=1,2 seed=3", "seed=3", "given twice"),
    ("-m seed=interval(0,1)", "seed=interval(0,1)", "hydra/sweeper=optuna"),
    ("-m seed=range(1,1)", "seed=range(1,1)", "no value at all"),
    ("-m seed=range(5,2)", "seed=range(5,2)", "no value at all"),
    ("-m model=glob(nonesuch*)", "model=glob(nonesuch*)", "matches no model"),
    ("-m optimizer.lr=glob(*)", "optimizer.lr=glob(*)", "for the options of a group"),
    ("model=glob(lenet5*)", "need -m"),
    ("-m seed=1,2 hydra/launcher=nope", "hydra/launcher/nope", "basic"),
    ("-m seed=1,2 hydra.sweep.dir=x", "hydra.sweep.dir=x"),
    ("-m seed=1,2 ~trainer", "~trainer", "nothing can be removed"),
]


def assert_one_line(answer, *fragments):
    assert answer.code == 2, answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    for fragment in fragments:
        assert fragment in answer.err
    assert answer.out == ""


def ids(cases):
    return [words for words, *_ in cases]


CHECKED = [
    *OPTIONS,
    *KEYS,
    *TYPES,
    *NOT_FINITE,
    *RANGES,
    *TARGETS,
    *WORDS,
    *SWEEPS,
]


@pytest.mark.parametrize(("words", "fragments"), [(w, f) for w, *f in CHECKED], ids=ids(CHECKED))
def test_wrong_command_line_is_refused_in_one_line_before_anything_is_built(
    words, fragments, command, here
):
    answer = command(words)
    assert_one_line(answer, *fragments)
    assert answer.configs == []
    assert list(here.iterdir()) == []


# Refused by the constructor of a part, which is built before there is a run folder.
BUILT = [
    ("optimizer.lr=-1", "optimizer", "Invalid learning rate: -1.0"),
    ("optimizer.betas=[0.9,1.5]", "optimizer", "Invalid beta parameter at index 1: 1.5"),
    ("optimizer=sgd optimizer.nesterov=true optimizer.momentum=0", "optimizer", "momentum"),
    ("optimizer=lbfgs", "L-BFGS needs all data in one batch", "or use optimizer=sgd"),
    ("optimizer=sgd optimizer.l1=-1", "optimizer: l1 must be at least 0, not -1"),
    ("optimizer=rmsprop optimizer._target_=torch.optim.SparseAdam", "use optimizer=adam"),
    ("optimizer=rmsprop optimizer._target_=torch.optim.Muon", "use optimizer=muon"),
    ("model=softmax_regression optimizer=muon", "Muon", "use optimizer=adamw"),
    ("optimizer.groups={nope*:{lr:0.1}}", "groups", "'nope*'", "c1.weight"),
    ("experiment=null optimizer=gan", "optimizer has generator, discriminator", "model"),
    ("data.batch_size=0", "data.batch_size", "at least 1, not 0"),
    ("data.image_size=4", "data.image_size", "at least 8, not 4"),
    ("model=mlp model.dropout=1.5", "model.dropout", "[0, 1), not 1.5"),
    ("model=mlp model.hidden_sizes=[-3]", "model.hidden_sizes", "-3"),
    ("model.image_size=5", "model.image_size", "at least 12, not 5"),
    ("model._target_=torch.nn.Identity", "model.num_classes='auto'"),
    ("model=char_lstm", "model.vocab_size=auto", "gives no vocab_size", "num_classes"),
    ("model=mlp model.dropout=auto", "model.dropout=auto", "gives no dropout", "in_features"),
    ("task=adversarial", "task", "generator"),
    ("schedule.warmup_steps=-1", "schedule.warmup_steps", "at least 0, not -1"),
    ("trainer.device=cuda:99", "trainer.device=cuda:99", "device=auto"),
    ("-m optimizer.lr=0.1,-1 seed=0,1", "Invalid learning rate: -1.0", "job 3 of 4", "nothing has"),
    ("-m model=mlp model.dropout=0.1,0.2,1.5", "model.dropout", "not 1.5", "job 2 of 3"),
]


@pytest.fixture
def no_folder(monkeypatch):
    def opened(self, recipe, device, data):
        raise AssertionError("a run folder would be made")

    monkeypatch.setattr(RunLocation, "open", opened)


@pytest.mark.parametrize(("words", "fragments"), [(w, f) for w, *f in BUILT], ids=ids(BUILT))
def test_value_that_only_a_part_itself_can_refuse_leaves_no_run_folder(
    words, fragments, command, here, no_folder
):
    assert_one_line(command(words, train.train), *fragments)
    assert list(here.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_gpu_says_what_to_use(command, here, no_folder):
    answer = command("trainer.device=cuda", train.train)
    assert_one_line(answer, "trainer.device=cuda", "0 CUDA devices", "trainer.device=auto")


MLP = "_target_: zoo.models.mlp.MLP\nin_features: 4\nnum_classes: 3\n"
FILES = [
    ("model/own.yaml", MLP + "\tdropout: 0\n", "not valid YAML", "own.yaml", "line 4"),
    ("model/own.yaml", MLP + "hidden_sizes: [3\n", "not valid YAML", "own.yaml"),
    ("model/own.yaml", MLP + "num_classes: 4\n", "duplicate key num_classes", "own.yaml"),
    ("model/own.yaml", MLP + "dropout: !!python/name:os.system\n", "not valid YAML", "own.yaml"),
    ("model/own.yaml", MLP + "droput: 0.1\n", "model.droput=0.1", "did you mean 'model.dropout'?"),
    ("model/own.yaml", MLP + "3: 4\n", "model.3=4", "allowed: "),
    ("model/own.yaml", MLP.replace("4", "???"), "model.in_features is required"),
    ("model/own.yaml", MLP.replace("4", "${nope}"), "model.in_features", "'nope' not found"),
    ("model/own.yaml", MLP.replace("4", "${nope:1}"), "model.in_features", "nope"),
    ("model/own.yaml", MLP.replace("4", "${model.in_features}"), "model.in_features", "Recursive"),
    ("model/own.yaml", MLP.replace("4", ".nan"), "model.in_features=nan", "a finite number"),
    ("model/own.yaml", "_target_: zoo.models.mlp.MLP\nnum_classes: 3\n", "in_features is required"),
    ("model/own.yaml", "in_features: 4\n", "model={in_features: 4}", "_target_"),
    ("model/own.yaml", "- 1\n", "model=[1]", "_target_"),
    ("model/own.yaml", "", "model", "lenet5"),
    ("model/own.yaml", "defaults: 3\n", "model/own", "defaults must be a list"),
    ("model/own.yaml", "defaults:\n  - nope\n", "model/own", "model/nope"),
    ("model/own.yaml", b"\xff\xfe\x00", "cannot be composed", "decode"),
    ("experiment/own.yaml", "# @package _global_\nfoo: 3\n", "foo=3", "allowed: "),
    ("experiment/own.yaml", "# @package _global_\nmodl:\n  a: 3\n", "did you mean 'model'?"),
    ("experiment/own.yaml", "# @package _global_\ntrainer:\n  epoch: 3\n", "'trainer.epochs'?"),
    ("experiment/own.yaml", "trainer:\n  epochs: 3\n", "experiment", "'# @package _global_'"),
    (
        "experiment/own.yaml",
        "# @package _global_\ndefaults:\n  - override /model: nope\n",
        "model/nope",
        "lenet5",
    ),
    (
        "experiment/own.yaml",
        "# @package _global_\ndefaults:\n  - override /modle: mlp\n",
        "experiment/own",
        "modle",
    ),
]


@pytest.mark.parametrize(("path", "content", "fragments"), [(p, c, f) for p, c, *f in FILES])
def test_wrong_configuration_file_of_ones_own_is_refused_in_one_line(
    path, content, fragments, command, here
):
    file = here / "own" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    group = path.partition("/")[0]
    answer = command(["--config-dir", "own", f"{group}=own"])
    assert_one_line(answer, *fragments)
    assert answer.configs == []
    assert [p.name for p in here.iterdir()] == ["own"]


def test_optimizers_for_other_networks_are_refused(command, here, no_folder):
    folder = here / "own" / "optimizer"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        "defaults:\n  - /optimizer/adam@generator\n  - /optimizer/adam@critic\n"
    )
    words = "--config-dir own experiment=gan_digits optimizer=own"
    answer = command(words, train.train)
    assert_one_line(answer, "generator, critic", "generator, discriminator")


def test_callback_that_refuses_its_arguments_is_named(command, here, monkeypatch):
    (here / "my_callbacks.py").write_text(
        "from zoo.training.callbacks import Callback\n"
        "class Mine(Callback):\n"
        "    def __init__(self, every: int = 1) -> None:\n"
        "        self.every = every\n"
    )
    monkeypatch.syspath_prepend(str(here))
    words = "trusted=[my_callbacks] callbacks.extra.mine={_target_:my_callbacks.Mine,evry:3}"
    assert_one_line(command(words), "callbacks.extra.mine.evry=3", "'callbacks.extra.mine.every'?")


SUBPROCESSES = [
    ("trainer.epoch=3", "trainer.epoch=3"),
    ("model=null", "model=null"),
    ("--bogus", "--bogus"),
    ("optimizer.lr=nan", "optimizer.lr=nan"),
    ("-m optimizer.lr=0.1,-1", "Invalid learning rate"),
    ("model._target_=os.system", "os.system"),
]


@pytest.mark.parametrize(("words", "fragment"), SUBPROCESSES, ids=ids(SUBPROCESSES))
def test_program_ends_with_2_and_one_line_on_standard_error(words, fragment, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *shlex.split(words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert fragment in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_groups_and_the_fixed_part_are_checked_before_torch_is_imported(tmp_path):
    script = """
import sys
from zoo.app import main as entry
for word in ("modle=mlp", "model=mpl", "trainer.epoch=3", "seed=-1", "--bogus", "--help"):
    entry.main(None, [word])
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == 5
