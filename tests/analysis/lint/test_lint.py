"""Advice: every rule speaks where it should and is silent where it should not, at the right place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.analysis.lint import RULES
from axon_compose.cli import main
from axon_compose.diagnostics.codes import CODES
from axon_compose.report import render
from tests.shipped import ALL, shipped
from tests.strategies.documents import mutated

GOLDEN = Path(__file__).parent / "golden"

#: A description that nothing is to be said of.
CLEAN: dict[str, Any] = {
    "version": 1,
    "dims": {"hidden_size": 128, "vocab_size": 64},
    "components": {
        "attn": {"type": "attention", "num_heads": 2},
        "mlp": {"type": "mlp", "intermediate_size": 128},
    },
    "blocks": {"layer": ["attn", "mlp"]},
    "stack": "layer*4",
}
MLP = CLEAN["components"]["mlp"]
MOE = {"type": "moe", "num_experts": 4, "intermediate_size": 64}
SSM = {"type": "axon_ssm", "expand": 1, "dt_rank": 64}
LATENT = {
    "type": "latent_attention", "num_heads": 2, "kv_lora_rank": 64, "qk_nope_head_dim": 64, "qk_rope_head_dim": 64,
}  # fmt: skip

WINDOW = {"type": "sliding_window_attention", "num_heads": 2, "window_size": 16}
LOCAL = {"blocks": {"layer": ["attn", "mlp"], "near": ["local", "mlp"]}, "stack": "near*3 layer"}


def attention(**options: Any) -> dict[str, Any]:
    return {"components": {"mlp": MLP, "attn": {"type": "attention", "num_heads": 2, **options}}}


def sizes(**dims: Any) -> dict[str, Any]:
    return {"dims": {**CLEAN["dims"], **dims}}


def architecture(**sections: Any) -> Architecture:
    return load({**CLEAN, **sections})


def codes(**sections: Any) -> list[str]:
    return [d.code for d in architecture(**sections).lint()]


LARGE = {"dims": {"hidden_size": 4096, "vocab_size": 64}, "stack": "layer*32"}

#: Rule to sections over `CLEAN` of which it speaks, with what it says and the text at its place.
SPEAKS: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "AX701": [
        ({"components": {**CLEAN["components"], "x": MLP}}, "no layer uses the component `x`", "x"),
        ({"blocks": {**CLEAN["blocks"], "y": ["mlp"]}}, "no layer uses the block `y`", "y"),
    ],
    "AX702": [(sizes(width=3), "no formula uses the dim `width`", "width")],
    "AX703": [
        (
            {"overrides": [{"layers": 1, "set": {"mlp.intermediate_size": 128}}]},
            "`mlp.intermediate_size` is already 128 without this override",
            "mlp.intermediate_size",
        )
    ],
    "AX704": [
        (attention(head_dim=48), "`attn` has heads of width 48, for which MLX has no fused attention kernel", "48"),
        (attention(num_heads=4), "`attn` has heads of width 32, for which MLX has no fused attention kernel", "attn"),
    ],
    "AX705": [
        (
            {"components": {**CLEAN["components"], "mlp": {"type": "mlp", "intermediate_size": 96}}},
            "rows of `mlp.down_proj.weight` have length 96, not a multiple of 64: "
            "12% of the parameters stay unquantised",
            "mlp",
        )
    ],
    "AX706": [
        (sizes(vocab_size=100), "`vocab_size` is 100, not a multiple of 8", "100"),
        (
            {**sizes(vocab_size=100), "embedding": {"padded_vocab_size": 102}},
            "`padded_vocab_size` is 102, not a multiple of 8",
            "100",
        ),
        (
            {**sizes(vocab_size=100), "embedding": {"padded_vocab_size": 104}, "head": {"tied": False}},
            "`vocab_size` is 100, not a multiple of 8",
            "100",
        ),
    ],
    "AX707": [
        (
            {**LARGE, **attention(num_heads=32)},
            "`attn` caches keys and values of all 32 heads; caches total 34.4 GB at 65,536 tokens",
            "attn",
        )
    ],
    "AX708": [
        (
            attention(window_size=16),
            "no layer attends beyond 16 tokens; all layers together reach back at most 60 tokens",
            "stack",
        ),
        (
            {
                "components": {**attention(window_size=16)["components"], "ssm": SSM},
                "blocks": {"layer": ["attn", "mlp"], "s": ["ssm"]},
                "stack": "layer s",
            },
            "no layer attends beyond 16 tokens; older tokens are seen only through states of constant size",
            "stack",
        ),
    ],
    "AX709": [
        (
            {
                **sizes(max_position_embeddings=64),
                **attention(window_size=64),
                "overrides": [{"layers": 3, "set": {"attn.window_size": None}}],
            },
            "the window of `attn` is 64 tokens and the context at most 64: it has no effect",
            "64",
        )
    ],
    "AX710": [
        (
            {**sizes(context_length=60000), **attention(rope={"theta": 10000})},
            "the lowest RoPE frequency of `attn` repeats after 47,117 tokens, and it attends to 60,000",
            "10000",
        )
    ],
    "AX711": [
        (
            attention(rope=False),
            "no attention has positions (NoPE: `attn`), and no recurrent state depends on the order",
            "attn",
        ),
        (
            attention(type="sliding_window_attention", window_size=16),
            "no attention has positions (NoPE: `attn`), and no recurrent state depends on the order",
            "attn",
        ),
    ],
    "AX712": [
        (
            {"components": {"mlp": MLP}, "blocks": {"layer": ["mlp"]}},
            "no layer mixes tokens: each prediction depends on the current token alone",
            "stack",
        )
    ],
    "AX713": [
        (
            {
                "components": {**CLEAN["components"], "mlp": {**MOE, "top_k": 4}},
            },
            "`mlp` sends every token to all 4 experts",
            "4",
        )
    ],
    "AX714": [
        ({"norm": {"eps": 1e-2}}, "`eps` of `rms_norm` is unusually large: 0.01", "0.01"),
        (
            {
                "components": {**CLEAN["components"], "last": {"type": "rms_norm", "eps": 1e-2}},
                "blocks": {"layer": ["attn", "mlp", "last"]},
            },
            "`eps` of `rms_norm` is unusually large: 0.01",
            "0.01",
        ),
        (attention(qk_norm={"eps": 1e-30}), "`qk_norm.eps` of `attention` is unusually small: 1e-30", "1e-30"),
    ],
    "AX715": [
        (
            {"dims": {"hidden_size": 512, "vocab_size": 128000}, **attention(num_heads=8), "head": {"tied": False}},
            "embedding and head have 96% of the parameters",
            "128000",
        )
    ],
    "AX716": [
        (
            {**LOCAL, "components": {**attention()["components"], "local": WINDOW}},
            "`local` attends within 16 tokens without positions (NoPE), and `attn` has them",
            "local",
        )
    ],
}

#: What looks like the above and is right.
SILENT: dict[str, list[dict[str, Any]]] = {
    "AX701": [
        {
            "components": {**CLEAN["components"], "x": MLP},
            "stack": {"layers": 4, "block": ["attn", "=x if i > 9 else mlp"]},
            "blocks": None,
        },
        {"blocks": {**CLEAN["blocks"], "y": ["mlp"]}, "stack": {"layers": 4, "block": "=y if i > 9 else layer"}},
    ],
    "AX702": [
        {**sizes(width=128), "components": {**CLEAN["components"], "mlp": {**MLP, "intermediate_size": "=width"}}},
        sizes(max_position_embeddings=64),
    ],
    "AX703": [
        {"overrides": [{"layers": 1, "set": {"mlp.intermediate_size": 64}}]},
        {"overrides": [
            {"layers": "0..2", "set": {"mlp.intermediate_size": 64}},
            {"layers": 1, "set": {"mlp.intermediate_size": 128}},
        ]},
    ],
    "AX704": [attention(head_dim=256), {"components": {"mlp": MLP, "attn": LATENT}}],
    "AX705": [{"components": {**CLEAN["components"], "mlp": {"type": "mlp", "intermediate_size": 64}}}],
    "AX706": [
        sizes(vocab_size=104),
        {**sizes(vocab_size=100), "embedding": {"padded_vocab_size": 104}},
        {**sizes(vocab_size=100), "head": {"tied": False, "padded_vocab_size": 104}},
    ],
    "AX707": [
        {**LARGE, **attention(num_heads=32, num_kv_heads=8)},
        {**LARGE, **attention(num_heads=32, window_size=1024)},
        {**LARGE, **attention(num_heads=32), "stack": "layer*4"},
    ],
    "AX708": [{**attention(window_size=16), "overrides": [{"layers": 3, "set": {"attn.window_size": None}}]}],
    "AX709": [{**sizes(max_position_embeddings=64), **attention(window_size=63)}, attention(window_size=10**6)],
    "AX710": [
        {**sizes(context_length=60000), **attention(rope={"theta": 1e6})},
        {**sizes(context_length=60000), **attention(window_size=4096)},
        {**sizes(context_length=60000), **attention(rope={"scaling": {"type": "linear", "factor": 4.0}})},
        attention(rope={"theta": 2}),
    ],
    "AX711": [
        {**attention(rope=False), "embedding": {"positions": 64}},
        attention(type="sliding_window_attention", window_size=16, rope=True),  # as the hint says
        {"components": {**attention(rope=False)["components"], "mlp": SSM}},
        attention(rope=False, temperature={"scale": 0.1, "length": 8}),
        attention(rope=False, alibi=True),
    ],
    "AX712": [{"components": {"mlp": SSM}, "blocks": {"layer": ["mlp"]}}],
    "AX713": [
        {"components": {**CLEAN["components"], "mlp": {**MOE, "top_k": 3}}},
        {"components": {**CLEAN["components"], "mlp": {**MOE, "num_experts": 1, "top_k": 1}}},
    ],
    "AX714": [{"norm": {"eps": 1e-8}}, {"components": {**CLEAN["components"], "mlp": {**MOE, "norm_eps": 1e-20}}}],
    "AX715": [{"head": {"tied": False}, **sizes(vocab_size=25600)}],
    "AX716": [
        {**LOCAL, "components": {**attention()["components"], "local": {**WINDOW, "rope": True}}},  # as the hint says
        {**LOCAL, "components": {**attention(rope=False)["components"], "local": {**WINDOW, "rope": True}}},
        {**LOCAL, "components": {**attention(rope=False)["components"], "local": WINDOW}},  # AX711 says it
        {**LOCAL, "components": {**attention()["components"], "local": WINDOW}, "embedding": {"positions": 64}},
        {**LOCAL, "components": {**attention()["components"], "local": WINDOW, "mlp": SSM}},
    ],
}  # fmt: skip


def test_every_rule_is_in_both_tables_and_explained() -> None:
    assert [rule.code for rule in RULES] == list(SPEAKS) == list(SILENT)
    assert [code for code in CODES if code.startswith("AX7")] == list(SPEAKS)


def test_nothing_is_said_of_a_clean_file() -> None:
    assert codes() == []


@pytest.mark.parametrize(
    ("code", "sections", "message", "text"),
    [pytest.param(code, *case, id=f"{code}-{n}") for code, cases in SPEAKS.items() for n, case in enumerate(cases)],
)
def test_a_rule_speaks(code: str, sections: dict[str, Any], message: str, text: str) -> None:
    found = architecture(**sections)
    (said,) = [d for d in found.lint() if d.code == code]
    assert said.message == message
    assert said.severity == "warning"
    assert said.help
    assert said.span
    line = found.sources[said.span.file].splitlines()[said.span.start.line - 1]
    assert line[said.span.start.column - 1 : said.span.end.column - 1].strip("'\"") == text


@pytest.mark.parametrize(
    ("code", "sections"),
    [pytest.param(code, case, id=f"{code}-{n}") for code, cases in SILENT.items() for n, case in enumerate(cases)],
)
def test_a_rule_is_silent(code: str, sections: dict[str, Any]) -> None:
    data = {key: value for key, value in {**CLEAN, **sections}.items() if value is not None}
    assert code not in [d.code for d in load(data).lint()]


def test_what_a_base_brings_along_is_not_judged() -> None:
    own = load({"version": 1, "extends": "qwen3", "components": {"idle": {"type": "mlp", "intermediate_size": 64}}})
    assert [d.message for d in own.lint() if d.code in ("AX701", "AX702")] == ["no layer uses the component `idle`"]


def test_what_the_command_line_adds_is_judged() -> None:
    idle = load("llama-small", settings=["components.idle={type: mlp, intermediate_size: 64}"])
    assert "AX701" not in [d.code for d in load("llama-small", settings=["dims.hidden_size=512"]).lint()]
    assert [d.message for d in idle.lint() if d.code == "AX701"] == ["no layer uses the component `idle`"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_advice_on_any_sound_description(data: dict[str, Any]) -> None:
    try:
        found = load(data)
    except ArchitectureError:
        assume(False)
    for said in found.lint():
        assert said.severity == "warning"
        assert said.span
    render(found.lint(), found.sources)


def test_advice_on_shipped_architectures() -> None:
    """Word for word; each line was judged when it was accepted (`UPDATE_GOLDEN=1` writes it anew)."""
    text = "".join(f"{name}: {d.code} {d.message}\n" for name in ALL for d in shipped(name).lint())
    for code in ("AX701", "AX702", "AX711"):  # nothing unused, and nothing of a recurrence where there is none
        assert code not in text
    golden = GOLDEN / "shipped.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "clean.yaml").write_text(json.dumps(CLEAN))
    (tmp_path / "idle.yaml").write_text(json.dumps({**CLEAN, **sizes(width=3)}))
    (tmp_path / "bad.yaml").write_text(json.dumps({**CLEAN, "stack": "nobody"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "start"),
    [
        (("clean.yaml",), 0, "clean.yaml: nothing to say\n"),
        (("clean.yaml", "--strict", "--format", "concise"), 0, ""),
        (("idle.yaml",), 0, "warning[AX702]: no formula uses the dim `width`\n --> idle.yaml:1:"),
        (("idle.yaml", "--strict"), 1, "warning[AX702]"),
        (("idle.yaml", "--format", "concise"), 0, "idle.yaml:1:"),
        (("idle.yaml", "--format", "github"), 0, "::warning file=idle.yaml,line=1,"),
        (("idle.yaml", "--format", "json"), 0, '[\n  {\n    "code": "AX702"'),
        (("idle.yaml", "--set", "dims.width=4"), 0, "warning[AX702]"),
        (("bad.yaml",), 1, ""),
    ],
)
def test_command(
    folder: Path, arguments: tuple[str, ...], code: int, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", *arguments]) == code
    out, err = capsys.readouterr()
    assert out.startswith(start)
    assert bool(out) == bool(start)
    assert bool(err) == (arguments == ("bad.yaml",))


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "idle.yaml", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["command"], answer["ok"]) == ("lint", True)
    assert [d["code"] for d in answer["diagnostics"]] == ["AX702"]
