"""Multi30k: 31,014 English descriptions of images and their German translations.

Elliott, Frank, Sima'an and Specia, 2016, "Multi30K: multilingual English-German image
descriptions", https://arxiv.org/abs/1605.00459; task 1 of WMT 2016, raw text, from
https://github.com/multi30k/dataset. 29,000 pairs for training, 1,014 for validation, and
the 1,000 of the test set of 2016.
"""

from pathlib import Path
from typing import ClassVar, Literal, Unpack

from zoo.data.download import download
from zoo.data.text.parallel_text import PairOptions, SentencePairs, read_pairs

Language = Literal["de", "en"]
PARTS = {"train": "train", "val": "val", "test": "test_2016_flickr"}


class Multi30k(SentencePairs):
    """Short, simple sentences in two languages: German to English by default.

    The public recipe (lower-case words that occur twice, 7,853 German and 5,893 English ones with
    spaCy's tokenisation) gives 7,861 and 5,927 with ours.

    Args:
        source: language to translate from, ``de`` or ``en``.
        target: language to translate to, the other one.
        root: folder of all downloads; the files are ``root/multi30k/train.de.gz`` and so on.
        lower_case: see :class:`~zoo.data.text.parallel_text.SentencePairs`.
        options: see :class:`~zoo.data.text.parallel_text.PairOptions`.
    """

    url = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
    checksums: ClassVar[dict[str, str]] = {  # sha256
        "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
        "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
        "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
        "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
        "test_2016_flickr.de.gz": (
            "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8"
        ),
        "test_2016_flickr.en.gz": (
            "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9"
        ),
    }

    def __init__(
        self,
        *,
        source: Language = "de",
        target: Language = "en",
        root: str = "data",
        lower_case: bool = True,
        **options: Unpack[PairOptions],
    ) -> None:
        super().__init__(lower_case=lower_case, **options)
        for name, language in (("source", source), ("target", target)):
            if language not in ("de", "en"):
                raise ValueError(f"{name} must be de or en, not {language!r}")
        if source == target:
            raise ValueError(f"target must differ from the source, not {target!r}")
        self.languages = source, target
        self.root = Path(root)

    def texts(self) -> dict[str, tuple[list[str], list[str]]]:
        return {
            split: read_pairs(*(self._file(f"{part}.{lang}.gz") for lang in self.languages))
            for split, part in PARTS.items()
        }

    def _file(self, name: str) -> Path:
        path = self.root / "multi30k" / name
        return download(f"{self.url}/{name}", path, sha256=self.checksums[name])
