"""Formulas one by one: values, error messages with the characters they blame, limits."""

from __future__ import annotations

import pickle
import time

import pytest

from axon_compose.language.document.formula import FUNCTIONS, RESERVED, FormulaError, Meter, is_formula, parse

NAMES = {
    "hidden_size": 4096, "num_heads": 32, "i": 5, "ratio": 0.5, "pattern": "MEM*", "kv_heads": [8, 4, 2], "none": None,
    "attn": "attn", "moe": "moe", "rope": {"theta": 1e4, "type": "yarn"}, "flag": True, "huge": 10**400,
    "nan": float("nan"),
}  # fmt: skip

VALUES = [
    ("=hidden_size / num_heads", 128),
    ("=hidden_size / 3", 4096 / 3),
    ("=4 / 2.0", 2.0),
    ("=-7 / 7", -1),
    ("=-7 // 2", -4),
    ("=-7 % 4", 1),
    ("=2 ** -1", 0.5),
    ("=-2 ** 2", -4),
    ("=2 ** 3 ** 2", 512),
    ("=2 - 3 - 4", -5),
    ("=2 ** 255", 2**255),
    ("=1e-6", 1e-6),
    ("=1_000 + .5 + 2.", 1002.5),
    ("=round(2.5)", 2),
    ("=round(2.675, 2)", 2.67),
    ("=round(1234, -2)", 1200),
    ("=ceil(hidden_size / 3)", 1366),
    ("=floor(-0.5)", -1),
    ("=sqrt(16)", 4.0),
    ("=ints('3,4, -5')", [3, 4, -5]),
    ("=ints(' ')", []),
    ("=min(kv_heads) + max(1, 2, 3)", 5),
    ("=[x * 2 for x in kv_heads]", [16, 8, 4]),
    ("=[x for x in range(1, 4) if x != 2]", [1, 3]),
    ("=[a if a == 'M' else num_heads for a in pattern]", ["M", 32, "M", 32]),
    ("=[key + '!' for key in rope]", ["theta!", "type!"]),
    ("=[[a + b for a in range(b)] for b in [1, 2]]", [[1], [2, 3]]),
    ("=at(kv_heads, 1) + at(hidden_size, 1)", 4100),
    ("=at('MEM', 1)", "MEM"),
    ("=[is_list(kv_heads), is_list(pattern)]", [True, False]),
    ("=rope | {'theta': 2} | {'factor': 3}", {"theta": 2, "type": "yarn", "factor": 3}),
    ("={} | {} == {} or 1", True),
    ("=sum(kv_heads) + sum([])", 14),
    ("=range(-1)", []),
    ("=text(-7) + text(2)", "-72"),
    ("=[{'5': 'five'}[text(l)] if text(l) in {'5': 1} else l for l in range(4, 6)]", [4, "five"]),
    ("=round(log(1000) / log(10), 9)", 3.0),
    ("=max('ab', 'b')", "b"),
    ("=len(pattern) + len(kv_heads) + len(rope)", 9),
    ("=attn if (i + 1) % 4 == 0 else moe", "moe"),
    ("={'M': moe, '*': attn}[pattern[-1]]", "attn"),
    ("={2: 'one', 2.5: 'x', null: 'n', true: 't'}[null]", "n"),
    ("=kv_heads[i // 2]", 2),
    ("=rope['type'][0]", "y"),
    ("=[[1, 2], [3, 4],][1][-2]", 3),
    ("=[]", []),
    ("={}", {}),
    ("=1 < 2 < 3 != 4", True),
    ("=1 < 3 < 2", False),
    ("='M' in pattern and 4 in kv_heads and 'theta' in rope and 9 not in kv_heads", True),
    ("=none or 7", 7),
    ("=0 and 1 // 0", 0),
    ("=1 or nowhere", 1),
    ("=1 // 0 if false else 'safe'", "safe"),
    ("=2 > 1 > 3 > nowhere", False),
    ("=not 1 == 2", True),
    ("=not not none", False),
    ("=1 == true", True),
    ("=[1, 2] == [1, 2.0]", True),
    ("=[1] * 2 + 2 * [0]", [1, 1, 0, 0]),
    ("='ab' * 2 + 'c'", "ababc"),
    ("=[1] * 0 + ['a'] * -3", []),
    ("='it\\'s \\\\ \\n'", "it's \\ \n"),
    ("=\n  1 +\n\t2\r\n", 3),
    ("=flag", True),
    ("=(((1)))", 1),
    ("=" + "+".join(["1"] * 900), 900),
    ("=" + "-" * 60 + "1", 1),
    ("=" + "(" * 60 + "1" + ")" * 60, 1),
    ("=" + "1 if 0 else " * 60 + "2", 2),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text[:40] for text, _ in VALUES])
def test_a_formula_has_this_value(text: str, value: object) -> None:
    result = parse(text).evaluate(NAMES)
    assert result == value
    assert type(result) is type(value)


# The text, the characters to blame, the message, the help.
FUNCTIONS_HINT = "the functions are " + ", ".join(f"`{name}`" for name in FUNCTIONS)
UNREADABLE = [
    ("=", "=", "the formula is empty", "write a value after the `=`"),
    ("=  ", "=", "the formula is empty", "write a value after the `=`"),
    ("1", "1", "a formula begins with `=`", None),
    ("=1 +", "+", "the formula ends where a value was expected", None),
    ("=1 2", "2", "expected an operator, found `2`", None),
    ("=* 2", "*", "expected a value, found `*`", None),
    ("=(1 + 2", "(", "`(` is never closed", "add a `)`"),
    ("=[1, {'a': 2", "{", "`{` is never closed", "add a `}`"),
    ("=(1]", "]", "expected `)`, found `]`", None),
    ("=1)", ")", "expected an operator, found `)`", None),
    ("=[1 2]", "2", "expected `,` or `]`, found `2`", None),
    ("=[,]", ",", "expected a value, found `,`", "a list is written `[a, b]`"),
    ("=1, 2", ",", "expected an operator, found `,`", "a list is written `[a, b]`"),
    ("=i in (1, 2)", ",", "expected `)`, found `,`", "a list is written `[a, b]`"),
    ("={1}", "}", "expected `:`, found `}`", "a mapping is written `{'a': 1}`, a list `[a, b]`"),
    ("={1", "{", "`{` is never closed", "add a `}`"),
    ("=a[1:2]", ":", "expected `]`, found `:`", "there are no slices"),
    ("=a[:2]", ":", "expected a value, found `:`", "there are no slices"),
    ("=a[]", "]", "expected a value, found `]`", None),
    ("=a.b", ".", "`.` is not allowed in a formula",
     "there are no attributes; index a mapping with `name['key']`"),
    ("=abs(1)", "abs", "`abs` is not a function",
     FUNCTIONS_HINT),
    ("=[1](2)", "(", "expected an operator, found `(`",
     FUNCTIONS_HINT),
    ("=min + 1", "min", "`min` is a function", "write `min(…)`"),
    ("=sqrt(1, 2)", "sqrt(1, 2)", "`sqrt` takes one value, not 2", None),
    ("=len()", "len()", "`len` takes one value, not 0", None),
    ("=round(1, 2, 3)", "round(1, 2, 3)", "`round` takes one or two values, not 3", None),
    ("=max()", "max()", "`max` takes at least one value, not 0", None),
    ("=1 == not 2", "not", "`not` needs parentheses here", "write `(not …)`"),
    ("=1 not 2", "2", "expected `in`, found `2`", None),
    ("=a if b", "b", "the formula ends where `else` was expected", "write `a if condition else b`"),
    ("=1 if 2 if 3 else 4 else 5", "if", "expected `else`, found `if`", "write `a if condition else b`"),
    ("=a if b then c", "then", "expected `else`, found `then`", "write `a if condition else b`"),
    ("=a AND b", "AND", "expected an operator, found `AND`", "write `and`"),
    ("=a is null", "is", "expected an operator, found `is`", "`==` compares two values"),
    ("=[1, x for x in y]", "for", "expected `,` or `]`, found `for`",
     "a list is made of another one by `[item for name in list]`"),
    ("=[x for 1 in y]", "1", "expected a name for the items, found `1`", None),
    ("=[x for x y]", "y", "expected `in`, found `y`", None),
    ("=[x for x in y, z]", ",", "expected `]`, found `,`", "a list is written `[a, b]`"),
    ("=a && b", "&&", "`&&` is not allowed in a formula", "write `and`"),
    ("=a || b", "||", "`||` is not allowed in a formula", "write `or`"),
    ("=!a", "!", "`!` is not allowed in a formula", "write `not`"),
    ("=a ? b : c", "?", "`?` is not allowed in a formula", "write `a if condition else b`"),
    ("=at(a)", "at(a)", "`at` takes two values, not 1", None),
    ("=2 ^ 3", "^", "`^` is not allowed in a formula", "a power is written `**`"),
    ("=a = b", "=", "`=` is not allowed in a formula", "`==` compares two values"),
    ("=${a}", "$", "`$` is not allowed in a formula", "write the name without `$`"),
    ("=f'a'", "'a'", "expected an operator, found `'a'`", "strings have no prefix"),
    ("='a' 'b'", "'b'", "expected an operator, found `'b'`", "join strings with `+`"),
    ("='a", "'a", "the string is never closed", "close it with `'`"),
    ("='a\\", "\\", "unknown escape in a string", "a backslash is written `\\\\`"),
    ("='\\d'", "\\d", "unknown escape in a string", "a backslash is written `\\\\`"),
    ("='a\nb'", "\n", "the character U+000A is not allowed in a string", None),
    ("='\0'", "\0", "the character U+0000 is not allowed in a string", None),
    ("='\ud800'", "\ud800", "the character U+D800 is not allowed in a string", None),
    ("=\0", "\0", "the character U+0000 is not allowed in a formula", None),
    ("=1\u00a0+ 2", "\u00a0", "the character U+00A0 is not allowed in a formula", None),
    ("=`a`", "`", "the character U+0060 is not allowed in a formula", None),
    ("=٣", "٣", "the character `٣` is not allowed in a formula", None),
    ("=größe", "ö", "the character `ö` is not allowed in a formula", None),
    ("=2x", "2x", "`2x` is not a number", None),
    ("=1.2.3", "1.2.3", "`1.2.3` is not a number", None),
    ("=0x10", "0x10", "`0x10` is not a number", None),
    ("=1__0", "1__0", "`1__0` is not a number", None),
    ("=1if 2 else 3", "1if", "`1if` is not a number", None),
    ("=007", "007", "`007` begins with a zero", "write `7`"),
    ("=1e999", "1e999", "`1e999` is too large a number", None),
    ("=" + str(2**256), str(2**256), "`115792089237316195423570985008687907853…` is too large a number", None),
    ("=" + "1" * 101, "1" * 101, "a number has at most 100 characters", None),
    ("=" + "a" * 101, "a" * 101, "a name has at most 100 characters", None),
]  # fmt: skip

WITHOUT_VALUE = [
    ("=[i for i in kv_heads]", "i", "`i` has a value already", "choose another name for the items, such as `x`"),
    ("=[x for x in i]", "i", "an integer has no items", None),
    ("=[y for x in kv_heads]", "y", "unknown name `y`", None),
    ("=[10 // x for x in range(2)]", "x", "division by zero", None),
    ("=at(kv_heads, 7)", "7", "index `7` is out of range: there are 3 items", "indices start at 0"),
    (
        "=1 | 2",
        "1 | 2",
        "`|` does not work on an integer and an integer",
        "write `or` for a choice; `|` puts two mappings together",
    ),
    (
        "=rope | kv_heads",
        "rope | kv_heads",
        "`|` does not work on a mapping and a list",
        "write `or` for a choice; `|` puts two mappings together",
    ),
    ("=log(1 - 1)", "1 - 1", "`log` of a number that is not positive", None),
    ("=text(1.5)", "1.5", "`text` takes an integer, not a number", None),
    ("=sum(i)", "i", "`sum` takes a list, not an integer", None),
    ("=sum([1, 'a'])", "[1, 'a']", "`sum` takes numbers, not a string", None),
    ("=range(1, 2.0)", "2.0", "`range` takes integers, not a number", None),
    ("=range(10**9)", "range(10**9)", "the result has more than 100,000 parts", None),
    ("=hidden_sise * 2", "hidden_sise", "unknown name `hidden_sise`", "did you mean `hidden_size`?"),
    ("=1 + zzz", "zzz", "unknown name `zzz`", None),
    ("={M: 1}", "M", "unknown name `M`", "a string key needs quotes: `'M'`"),
    ("=1 // (2 - 2)", "(2 - 2)", "division by zero", None),
    ("=1 + 6 / 0 + 1", "0", "division by zero", None),
    ("=1 % 0.0", "0.0", "division by zero", None),
    ("=0 ** -1", "0 ** -1", "division by zero: zero to a negative power", None),
    ("=(-8) ** 0.5", "(-8) ** 0.5", "a negative number to a fractional power is not real", None),
    ("=1 + sqrt(-4)", "-4", "`sqrt` of a negative number", None),
    ("=ints([3])", "[3]", "`ints` does not work on a list", None),
    ("=ints('3;4')", "'3;4'", "`3;4` is not an integer", "numbers are separated by commas"),
    ("=kv_heads[i]", "i", "index `5` is out of range: there are 3 items", "indices start at 0"),
    ("=kv_heads[-4] + 1", "-4", "index `-4` is out of range: there are 3 items", "indices start at 0"),
    ("=pattern[4]", "4", "index `4` is out of range: there are 4 characters", "indices start at 0"),
    ("=[1][1]", "1", "index `1` is out of range: there is 1 item", "indices start at 0"),
    (
        "=kv_heads[huge]",
        "huge",
        "index (too large to print) is out of range: there are 3 items",
        "indices start at 0",
    ),
    ("=kv_heads[1.0]", "1.0", "an index is an integer, not a number", None),
    ("=kv_heads[flag]", "flag", "an index is an integer, not a boolean", None),
    ("=i[0]", "i", "an integer cannot be indexed", None),
    ("=kv_heads[0][1]", "kv_heads[0]", "an integer cannot be indexed", None),
    ("=rope['thetta']", "'thetta'", "unknown key `thetta`", "did you mean `theta`?"),
    ("=rope['x']", "'x'", "unknown key `x`", "the keys are `theta`, `type`"),
    ("=rope['\\n']", "'\\n'", "unknown key `\\u{a}`", "the keys are `theta`, `type`"),
    ("={}[1]", "1", "unknown key `1`", "the mapping is empty"),
    ("=rope[[]]", "[]", "a list cannot be a key", None),
    ("={[]: 1}", "[]", "a list cannot be a key", None),
    ("={'a': 1, 'a': 2}", "'a'", "the key `a` appears twice", None),
    ("=1 + 2 + 'a' + 3", "1 + 2 + 'a'", "`+` does not work on an integer and a string", None),
    ("=pattern % 2", "pattern % 2", "`%` does not work on a string and an integer", None),
    ("=kv_heads * 1.5", "kv_heads * 1.5", "`*` does not work on a list and a number", None),
    ("=none + 1", "none + 1", "`+` does not work on null and an integer", None),
    ("=flag + 1", "flag + 1", "`+` does not work on a boolean and an integer", "write `1 if … else 0`"),
    ("=2 * (i == 5)", "2 * (i == 5)", "`*` does not work on an integer and a boolean", "write `1 if … else 0`"),
    ("=[1] * flag", "[1] * flag", "`*` does not work on a list and a boolean", "write `1 if … else 0`"),
    ("=-pattern", "-pattern", "`-` does not work on a string", None),
    ("=-flag", "-flag", "`-` does not work on a boolean", None),
    ("=1 < 2 < 'a'", "2 < 'a'", "`<` does not compare an integer with a string", None),
    ("=[1] < [2]", "[1] < [2]", "`<` does not compare a list with a list", None),
    ("=flag < 2", "flag < 2", "`<` does not compare a boolean with an integer", None),
    ("=1 in pattern", "1", "a string contains strings, not an integer", None),
    ("=1 in i", "i", "`in` searches a list, a string or a mapping, not an integer", None),
    ("=[] not in rope", "[]", "a list cannot be a key", None),
    ("=len(i)", "i", "`len` does not work on an integer", None),
    ("=ceil('1')", "'1'", "`ceil` does not work on a string", None),
    ("=floor(flag)", "flag", "`floor` does not work on a boolean", None),
    ("=round(1.5, 0.5)", "0.5", "`round` takes an integer number of places, not a number", None),
    ("=round(1, -10**9)", "-10**9", "`round` takes at most 100 places", None),
    ("=max([])", "[]", "`max` of an empty list", None),
    ("=min(3)", "3", "`min` of one value takes a list, not an integer", None),
    ("=min(1, 'a')", "min(1, 'a')", "`min` takes numbers or strings, not an integer and a string", None),
    ("=max(1, flag)", "max(1, flag)", "`max` takes numbers or strings, not an integer and a boolean", None),
    ("=huge", "huge", "the number is too large", "integers have at most 256 bits"),
    ("=1 + huge", "huge", "the number is too large", "integers have at most 256 bits"),
    ("=2 ** 255 * 2", "2 ** 255 * 2", "the number is too large", "integers have at most 256 bits"),
    ("=ceil(1e300)", "ceil(1e300)", "the number is too large", "integers have at most 256 bits"),
    ("=9**9**9**9", "9**9**9", "the result is too large", None),
    ("=1e200 ** 2", "1e200 ** 2", "the result is too large", None),
    ("=1e308 * 10", "1e308 * 10", "the number is not finite", None),
    ("=[nan]", "[nan]", "the number is not finite", None),
    ("=1 + 'a' * 10**9", "'a' * 10**9", "the result has more than 100,000 parts", None),
    ("=[0] * 10**10", "[0] * 10**10", "the result has more than 100,000 parts", None),
    ("=[[0] * 9999] * 9999", "[[0] * 9999] * 9999", "the result has more than 100,000 parts", None),
]


@pytest.mark.parametrize(("text", "blamed", "message", "hint"), UNREADABLE, ids=[case[0][:40] for case in UNREADABLE])
def test_an_unreadable_formula_says_why(text: str, blamed: str, message: str, hint: str | None) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    error = caught.value
    assert (text[error.start : error.end], error.message, error.help) == (blamed, message, hint)


@pytest.mark.parametrize(("text", "blamed", "message", "hint"), WITHOUT_VALUE, ids=[case[0] for case in WITHOUT_VALUE])
def test_a_formula_without_value_says_why(text: str, blamed: str, message: str, hint: str | None) -> None:
    formula = parse(text)
    with pytest.raises(FormulaError) as caught:
        formula.evaluate(NAMES)
    error = caught.value
    assert (text[error.start : error.end], error.message, error.help) == (blamed, message, hint)


def test_the_place_is_exact_when_words_repeat() -> None:
    with pytest.raises(FormulaError) as caught:
        parse("={'a': 1, 'a': 2}").evaluate({})
    assert (caught.value.start, caught.value.end) == (10, 13)


@pytest.mark.parametrize(
    "text",
    [
        "=9**9**9**9", "=2**2**2**2**2**2", "=" + "(" * 1999, "=" + "[" * 1999, "=" + "{1:" * 600, "=" + "a[" * 900,
        "='a'*10**9", "=[0]*10**10", "=10**10*[0]*10**10", "=" + "-" * 1999, "=" + "-" * 5000, "=" + "not " * 499,
        "=" + "1 if 1 else " * 160, "=" + "1 if 1 else" * 500, "=" + "min(" * 499, "=" + "2**" * 600 + "2",
        "=" + "1<" * 900 + "1", "=" + "x*" * 900 + "x", "=" + "xs+" * 600 + "xs", "=" + "xs*9+" * 300 + "xs",
        "=round(1, 10**70)", "=round(1, -(10**70))", "=" + "'" * 1999, "=" + "\\" * 1999, "=" + "9" * 1999,
        "=" + "9." * 999, "=" + "_" * 1999, "=[" + "xs," * 600 + "]==[" + "ys," * 20 + "]",
        "=[[[[[[[0]*99]*99]*99]*99]*99]*99]*99", "=1e308**1e308", "=1//1e-320", "=" + "٣" * 500, "=" + "\0" * 500,
        "=" + "xs in xs or " * 160 + "0", "=" + "max(xs)+" * 200 + "0", "=[" + "xs*1," * 380 + "]",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_attacks_end_soon_with_a_value_or_a_formula_error(text: str) -> None:
    names = {"x": 2**255, "xs": list(range(9999)), "ys": list(range(9999))}
    began = time.process_time()
    try:
        parse(text).evaluate(names)
    except FormulaError as error:
        assert 0 <= error.start < error.end <= len(text)  # noqa: PT017
    # Milliseconds as a rule; the bound only has to tell a bounded computation from an unbounded one.
    assert time.process_time() - began < 6


def _again_and_again(text: str, value: object) -> None:
    for _ in range(1000):
        value = parse(text).evaluate({"a": value})


def test_values_that_grow_from_dim_to_dim_stay_bounded() -> None:
    with pytest.raises(FormulaError, match="more than 100,000 parts"):
        _again_and_again("=[a, a]", [1] * 10)


def test_values_that_nest_from_dim_to_dim_stay_bounded() -> None:
    with pytest.raises(FormulaError, match="nests deeper than 64 levels"):
        _again_and_again("=[a]", 1)


def test_one_evaluation_has_a_bound_on_its_work() -> None:
    text = "=[" + "xs*1," * 60 + "][0]"
    with pytest.raises(FormulaError, match="takes too long"):
        parse(text).evaluate({"xs": [0] * 9999})


def test_length_and_depth_have_limits() -> None:
    parse("=" + " " * 1998 + "1")
    with pytest.raises(FormulaError, match="longer than 2000 characters"):
        parse("=" + " " * 1999 + "1")
    parse("=" + "(" * 63 + "1" + ")" * 63)
    with pytest.raises(FormulaError, match="deeper than 64 levels") as caught:
        parse("=" + "(" * 64 + "1" + ")" * 64)
    assert (caught.value.start, caught.value.end) == (64, 65)


def test_names_are_told_with_every_place() -> None:
    formula = parse("=[a, b + a if c else len(d)][0]")
    assert formula.names == {"a", "b", "c", "d"}
    assert formula.places["a"] == ((2, 3), (9, 10))
    assert formula.places["d"] == ((25, 26),)
    assert str(formula) == formula.text == "=[a, b + a if c else len(d)][0]"


def test_a_name_for_items_is_none_of_the_names() -> None:
    formula = parse("=[x + a for x in x if b] + [x]")
    assert (formula.names, formula.places["x"]) == ({"x", "a", "b"}, ((17, 18), (28, 29)))


@pytest.mark.parametrize(
    "text",
    [
        "=[x for x in range(90000) if sum(range(90000))]",
        "=[x for x in long if deep == copy]",
        "=[x for x in long if [x] in long]",
        "=[word * 90 for x in long]",
        "=[max(long) for x in long]",
        "=[[y for y in long] for x in long]",
    ],
)
def test_loops_cannot_run_long(text: str) -> None:
    deep = [[1] * 50_000, [2] * 40_000]
    names = {"long": list(range(50_000)), "deep": deep, "copy": [list(part) for part in deep], "word": "x" * 1000}
    meter = Meter()
    with pytest.raises(FormulaError, match="takes too long to compute"):
        parse(text).evaluate(names, meter)
    assert meter.steps < 500_000


def test_names_that_are_only_python_keywords_are_free() -> None:
    assert parse("=lambda + yield").evaluate({"lambda": 1, "yield": 2}) == 3


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_cannot_be_names(word: str) -> None:
    try:
        names = parse(f"={word}").names
    except FormulaError:
        names = frozenset()
    assert names == frozenset()


def test_reserved_words_hold_every_function() -> None:
    assert FUNCTIONS.keys() < RESERVED


def test_a_formula_does_not_change_the_values_it_is_given() -> None:
    names = {"xs": [1, 2]}
    assert parse("=xs + [3]").evaluate(names) == [1, 2, 3]
    assert parse("=xs * 2").evaluate(names) == [1, 2, 1, 2]
    assert names == {"xs": [1, 2]}


def test_only_texts_that_begin_with_an_equals_sign_are_formulas() -> None:
    assert is_formula("=1")
    assert not any(is_formula(value) for value in ["1", " =1", "", 1, None, ["=1"]])


def test_errors_survive_pickling() -> None:
    error = FormulaError("message", 1, 2, "help")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.start, copy.end, copy.help, str(copy)) == ("message", 1, 2, "help", "message")
