import inspect
import typing

import pytest

from zoo.config.component import check_component
from zoo.config.errors import ConfigError
from zoo.data.text.multi30k import Multi30k
from zoo.data.text.parallel_text import PairOptions, ParallelText, SentencePairs
from zoo.data.text.text import StandardLibrary, Text, TextOptions, TinyShakespeare
from zoo.data.text.text_files import TextFiles

HANDED_ON = [
    (StandardLibrary, Text, TextOptions),
    (TinyShakespeare, Text, TextOptions),
    (TextFiles, Text, TextOptions),
    (ParallelText, SentencePairs, PairOptions),
    (Multi30k, SentencePairs, PairOptions),
]


@pytest.mark.parametrize(("target", "base", "options"), HANDED_ON, ids=lambda c: c.__name__)
def test_options_are_the_arguments_of_the_base_that_the_class_does_not_name(target, base, options):
    hints = typing.get_type_hints(base.__init__)
    keywords = {
        n for n, p in inspect.signature(base).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    named = set(inspect.signature(target).parameters)
    expected = {name: hints[name] for name in keywords - named}
    assert typing.get_type_hints(options) == expected
    assert not options.__required_keys__
    handed_on = typing.get_type_hints(target.__init__)["options"]
    assert handed_on == typing.Unpack[options]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sequence_lenght", 3, "data.sequence_lenght=3: .* did you mean 'data.sequence_length'"),
        ("sequence_length", "x", "data.sequence_length='x': must be an integer"),
        ("order", "rows", "data.order='rows': must be tracks or windows"),
    ],
)
def test_options_are_checked_like_arguments(key, value, message):
    node = {"_target_": "zoo.data.text.text.StandardLibrary", key: value}
    with pytest.raises(ConfigError, match=message):
        check_component(node, "data", "data")
