"""What a task shows, kind by kind."""

from zoo.tasks.task import Image, Table, Text, Vectors


def _of(task, kind):
    return {name: entry for name, entry in task.show().items() if isinstance(entry, kind)}


def images_of(task):
    return {name: image.pixels for name, image in _of(task, Image).items()}


def texts_of(task):
    return {name: text.text for name, text in _of(task, Text).items()}


def tables_of(task):
    return {name: table.rows for name, table in _of(task, Table).items()}


def vectors_of(task):
    return _of(task, Vectors)
