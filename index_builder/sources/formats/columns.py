"""Arrow columns as files hold them (of any type, with nulls) made into texts, lists of texts and whole numbers.

All at once, without an object for each cell; nulls become empty, lists lose their blank parts.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def texts(column: pa.Array) -> pa.StringArray:
    """Texts without nulls; numbers, dates and truths are written out.

    Raises:
        ArrowInvalid, ArrowNotImplementedError: what the column holds has no text.
    """
    return pc.fill_null(column.cast(pa.string()), "")


def text_lists(column: pa.Array, separator: str = "") -> pa.ListArray:
    """Lists of trimmed texts; a text is split at the separator, or is a list of itself where there is none."""
    if not is_list(column.type):
        column = pc.split_pattern(texts(column), separator) if separator else _alone(column)
    parents = pc.list_parent_indices(column)
    values = pc.utf8_trim_whitespace(texts(pc.list_flatten(column)))
    kept = pc.not_equal(values, "")
    sizes = np.bincount(parents.filter(kept).to_numpy(), minlength=len(column))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.filter(kept))


def whole_numbers(column: pa.Array) -> tuple[pa.Int32Array, pa.BooleanArray]:
    """Numbers, 0 for what is empty, and where something else stands (0 as well)."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64(), safe=False)
    written = pc.utf8_trim_whitespace(texts(column))
    written = pc.replace_substring_regex(
        written, r"\.0+$", ""
    )  # of a program that has no other numbers
    good = pc.match_substring_regex(written, r"^-?[0-9]{1,9}$")
    numbers = pc.if_else(good, written, "0").cast(pa.int32())
    return numbers, pc.and_not(pc.not_equal(written, ""), good)


def or_else(column: pa.StringArray, otherwise: str) -> pa.StringArray:
    """The texts, another one where they are empty."""
    return pc.if_else(pc.equal(column, ""), otherwise, column)


def column(table: pa.Table, name: str) -> pa.Array:
    """One column as one array."""
    whole = table[name].combine_chunks()
    return pa.array([], whole.type) if isinstance(whole, pa.ChunkedArray) else whole


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """The table with a column put in the place of the one of this name, or behind the others."""
    place = table.schema.get_field_index(name)
    return table.append_column(name, column) if place < 0 else table.set_column(place, name, column)


def explode(table: pa.Table, name: str) -> tuple[pa.Table, pa.BooleanArray]:
    """A row for each text in the lists of a column, and which of them are the first of their list."""
    lists = column(table, name)
    parents = pc.list_parent_indices(lists)
    first = pa.array(np.diff(parents.to_numpy(), prepend=-1) != 0)
    return with_column(table.take(parents), name, pc.list_flatten(lists)), first


def distinct(table: pa.Table, but: str) -> pa.Table:
    """The first of the rows that are equal in all columns but one."""
    keys = {
        name: pc.binary_join(values, "\x1f") if is_list(values.type) else values
        for name, values in zip(table.column_names, table.columns, strict=True)
        if name != but
    }
    places = pa.table(keys | {"": pa.array(np.arange(table.num_rows))})
    first = places.group_by([*keys], use_threads=False).aggregate([("", "min")])
    return table.take(first["_min"])


def _alone(column: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1, dtype=np.int32)), column)
