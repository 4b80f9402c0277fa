"""Short names of the networks that runs end with."""

import pytest

from acll.node import Node
from acll.sharing.short_names import link_networks, short_names
from test_tree import configuration


def made(results, *nodes: Node):
    """Results that have the networks of some nodes."""
    for node in nodes:
        path = results / node.folder / "network.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(node.name)


def read(results) -> dict[str, str]:
    """What the links lead to, by name."""
    return {path.name: path.read_text() for path in (results / "networks").glob("*")}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (configuration("ab", "abc"), {"s0-half-seed0": "ab", "s1-half-seed0": "abc"}),
        (configuration("ab", seeds=(0, 1)), {"s0-half-seed0": "ab", "s0-half-seed1": "ab"}),
        (
            configuration("ab", which="all"),
            {"s0-half-seed0-a+b": "ab", "s0-half-seed0-b+a": "ba"},
        ),
        (
            configuration("ab", which="all", methods={"own": {"type": "individual"}}),
            {"s0-own-seed0-a": "a", "s0-own-seed0-b": "b"},
        ),
    ],
)
def test_each_final_network_has_a_name(asked, names):
    found = short_names(asked)
    assert {name: "".join(node.prefix) for name, node in found.items()} == names


def test_links_lead_to_what_is_there_and_go_with_it(tmp_path):
    long, short = configuration("abc"), configuration("ab", "ac")
    (node,) = short_names(long).values()
    made(tmp_path, node, *short_names(short).values())
    assert [str(link) for link in link_networks(tmp_path, long)] == [
        "networks/s0-half-seed0.safetensors"
    ]
    assert read(tmp_path) == {"s0-half-seed0.safetensors": "small/half/seed0/a/b/c"}
    mine = tmp_path / "networks/mine.safetensors"
    mine.write_text("mine")
    link_networks(tmp_path, short)
    assert read(tmp_path) == {
        "s0-half-seed0.safetensors": "small/half/seed0/a/b",
        "s1-half-seed0.safetensors": "small/half/seed0/a/c",
        "mine.safetensors": "mine",
    }
    mine.unlink()
    for path in tmp_path.glob("nodes/**/network.safetensors"):
        path.unlink()
    assert link_networks(tmp_path, short) == []
    assert not (tmp_path / "networks").exists()


def test_links_stand_where_results_are_moved(tmp_path):
    asked = configuration("ab")
    made(tmp_path / "here", *short_names(asked).values())
    link_networks(tmp_path / "here", asked)
    (tmp_path / "here").rename(tmp_path / "there")
    assert read(tmp_path / "there") == {"s0-half-seed0.safetensors": "small/half/seed0/a/b"}
