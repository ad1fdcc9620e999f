"""Plugins come in by entry point, one broken plugin harms nothing else, and names mean one thing."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from sslrob import Attack, hookimpl, zoo
from sslrob.builtin.gradient import PGD
from sslrob.errors import SslrobError
from sslrob.plugins import Component, Plugins, installed
from sslrob.testing import check_plugin, checks

NOISE = '''
"""Best of n random draws."""
from dataclasses import dataclass
from sslrob import Attack, Best, hookimpl

@dataclass(frozen=True)
class Noise(Attack):
    """Args:
    draws: random images tried.
    """

    access = "score"
    draws: int = 3

    def perturb(self, objective, images, threat_model, *, streams):
        best = Best(images)
        for _ in range(self.draws):
            candidates = threat_model.random_start(images, streams)
            best.update(candidates, objective(candidates))
        return best.images

@hookimpl
def register_attacks(register):
    register("third-party-noise", Noise)
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a one-module distribution where the interpreter finds it, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(distribution, source, version="0.1"):
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sslrob]\n{module} = {module}\n")

    yield put
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def plugin(**hooks):
    return SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})


def registering(name, target=PGD):
    return plugin(register_attacks=lambda register: register(name, target))


# by entry point


def test_first_party_components_come_in_like_any_other():
    plugins = Plugins().load()
    assert {"pgd", "fgsm", "noise"} <= {c.name for c in plugins.of("attack") if c.distribution == "sslrob"}
    assert [c.name for c in plugins.of("attack")] == sorted(c.name for c in plugins.of("attack"))


def test_a_third_partys_plugin(install):
    install("sslrob-third", NOISE)
    plugins = Plugins().load()
    component = plugins.find("attack", "third-party-noise")
    assert component.plugin == "sslrob-third 0.1"
    assert issubclass(plugins.get("attack", "sslrob-third/third-party-noise"), Attack)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("1 +", "SyntaxError"),
        ("from sslrob import hookimpl\n@hookimpl\ndef register_atacks(register): ...", "register_atacks"),
        ("from sslrob import hookimpl\n@hookimpl\ndef register_attacks(register): register('No', int)", "attack 'No' of sslrob-broken 0.1"),
        ("from sslrob import hookimpl\n@hookimpl\ndef register_attacks(register): 1 / 0", "ZeroDivisionError"),
    ],
    ids=["import", "raises", "syntax", "misspelt-hook", "bad-name", "raises-in-hook"],
)
def test_a_broken_plugin_is_named_and_harms_nothing(install, source, reason):
    install("sslrob-broken", source)
    install("sslrob-third", NOISE)
    plugins = Plugins().load()
    assert list(plugins.broken) == ["sslrob-broken 0.1"]
    assert reason in plugins.broken["sslrob-broken 0.1"]
    assert plugins.get("attack", "pgd") is PGD
    assert plugins.find("attack", "third-party-noise")
    assert not [c for c in plugins.components if c.distribution == "sslrob-broken"]
    assert "sslrob-broken 0.1" not in plugins.origins
    with pytest.raises(SslrobError, match="'pdg'") as caught:
        plugins.get("attack", "pdg")
    assert "'pgd'" in caught.value.hint
    assert "sslrob-broken 0.1" in caught.value.note


def test_a_plugin_that_breaks_half_way_leaves_nothing_behind():
    def half(register):
        register("first", PGD)
        raise RuntimeError("boom")

    plugins = Plugins()
    with pytest.raises(RuntimeError):
        plugins.add(plugin(register_attacks=half), "sslrob-half 1")
    assert (plugins.components, plugins.origins) == ([], [])
    plugins.add(registering("first"), "sslrob-whole 1")
    assert [c.plugin for c in plugins.of("attack")] == ["sslrob-whole 1"]


def test_loading_can_be_restricted(install, monkeypatch):
    install("sslrob-third", NOISE)
    install("sslrob-broken", "raise RuntimeError('boom')")
    for wanted, origins in (("sslrob-third", {"sslrob", "sslrob-third"}), ("", {"sslrob"})):
        monkeypatch.setenv("SSLROB_PLUGINS", wanted)
        plugins = Plugins().load()
        assert {origin.split()[0] for origin in plugins.origins} == origins
        assert plugins.broken == {}
    monkeypatch.setenv("SSLROB_PLUGINS", "sslrob-third, sslrob-broken")
    plugins = Plugins().load()
    assert len(plugins.origins) == 2
    assert list(plugins.broken) == ["sslrob-broken 0.1"]


def test_listing_what_is_installed_imports_no_torch():
    code = "import sys; from sslrob.plugins import installed; p = installed(); p.zoo_files(); print(len(p.of('attack')), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(out[0]) >= 3
    assert out[1] == "False"


def test_public_names_are_imported_when_used():
    code = "import sys, sslrob; sslrob.Attack, sslrob.Defense, sslrob.SslrobError, sslrob.__version__; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False"]


def test_every_public_name_is_there():
    import sslrob
    import sslrob.testing

    for package in (sslrob, sslrob.testing):
        assert set(package.__all__) <= set(dir(package))
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = package.nonsense


# names


def test_a_clash_is_an_error_only_for_who_asks():
    plugins = Plugins()
    plugins.add(registering("pgd", "sslrob.builtin.gradient:PGD"), "sslrob 1.0")
    plugins.add(registering("pgd", "sslrob.builtin.gradient:FGSM"), "sslrob-other 2.0")
    plugins.add(registering("other"), "sslrob-other 2.0")
    assert plugins.get("attack", "other") is PGD
    assert plugins.get("attack", "sslrob/pgd") is PGD
    assert plugins.get("attack", "sslrob-other/pgd").__name__ == "FGSM"
    with pytest.raises(SslrobError, match="'pgd' is offered by 2 plugins") as caught:
        plugins.find("attack", "pgd")
    assert caught.value.hint == "write sslrob/pgd or sslrob-other/pgd"


@pytest.mark.parametrize("name", ["PGD", "p g d", "-pgd", "", "pgd/x", "pgd_2", "pgd\n", "ä"])
def test_bad_names_are_refused(name):
    with pytest.raises(SslrobError, match="invalid name") as caught:
        Plugins().add(registering(name), "sslrob-x 1")
    assert "sslrob-x 1" in str(caught.value)


def test_a_misspelt_hook_is_refused():
    from pluggy import PluginValidationError

    with pytest.raises(PluginValidationError, match="register_atacks"):
        Plugins().add(plugin(register_atacks=lambda register: None), "sslrob-x 1")


@pytest.mark.parametrize(
    ("name", "says"),
    [("pdg", "no attack is named 'pdg'"), ("nobody/pgd", "no attack is named 'nobody/pgd'"), ("", "no attack is named ''")],
)
def test_unknown_names(name, says):
    plugins = Plugins()
    plugins.add(registering("pgd"), "sslrob 1")
    with pytest.raises(SslrobError) as caught:
        plugins.find("attack", name)
    assert says in str(caught.value)
    assert caught.value.hint
    assert caught.value.note == ""


def test_kinds_do_not_mix():
    plugins = Plugins()
    plugins.add(registering("pgd"), "sslrob 1")
    with pytest.raises(SslrobError, match="no task is named 'pgd'"):
        plugins.find("task", "pgd")


# components


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (int, "does not extend sslrob.Attack"),
        (PGD(), "does not extend sslrob.Attack"),
        ("sslrob.streams:Streams", "does not extend sslrob.Attack"),
        ("sslrob.builtin.gradient:Nothing", "cannot be imported: AttributeError"),
        ("no_such_module:PGD", "cannot be imported: ModuleNotFoundError"),
        ("sslrob.builtin.gradient", "cannot be imported"),
    ],
    ids=["other-class", "instance", "other-string", "no-attribute", "no-module", "no-colon"],
)
def test_what_is_no_attack_is_refused_when_asked_for(target, says):
    plugins = Plugins()
    plugins.add(registering("odd", target), "sslrob-odd 1")
    with pytest.raises(SslrobError) as caught:
        plugins.get("attack", "odd")
    assert says in str(caught.value)
    assert "'odd' of sslrob-odd 1" in str(caught.value)
    assert caught.value.hint


def test_nothing_is_imported_until_it_is_asked_for():
    plugins = Plugins()
    plugins.add(registering("later", "antigravity:Attack"), "sslrob-x 1")
    assert plugins.of("attack") == [Component("attack", "later", "antigravity:Attack", "sslrob-x 1")]
    assert "antigravity" not in sys.modules


def test_a_component_is_summed_up_without_being_imported():
    def summary(target):
        return Component("attack", "one", target, "sslrob-x 1").summary

    assert summary("sslrob.builtin.spsa:SPSA") == summary(installed().get("attack", "spsa")) != ""
    assert "antigravity" not in sys.modules
    assert [summary(target) for target in ("antigravity:Attack", "nothing.there:Attack", "sslrob", "no:")] == [""] * 4


# references and zoo files


def test_references_go_to_whoever_knows_the_scheme():
    plugins = Plugins()
    record = zoo.Victim(task="classification", reference="toy:x")
    plugins.add(plugin(resolve_reference=lambda kind, text: None), "a 1")
    plugins.add(plugin(resolve_reference=lambda kind, text: record if (kind, text) == ("victim", "toy:x") else None), "b 1")
    assert plugins.resolve("victim", "toy:x") == record
    assert plugins.resolve("backbone", "toy:x") is None
    assert plugins.resolve("victim", "other:x") is None


def test_what_a_reference_means_is_a_record_of_its_kind():
    plugins = Plugins()
    plugins.add(plugin(resolve_reference=lambda text: f"<{text}>"), "a 1")
    assert plugins.resolve("victim", "toy:x") is None
    assert plugins.complaints() == ["a 1 (TypeError: resolve_reference returned str, not Victim)"]


def test_zoo_files_of_all_plugins(tmp_path):
    plugins = Plugins()
    for name in "ab":
        plugins.add(plugin(zoo_files=lambda name=name: [tmp_path / name]), f"{name} 1")
    assert sorted(plugins.zoo_files()) == [tmp_path / "a", tmp_path / "b"]


# sslrob plugins check


def test_a_sound_plugin_passes_its_check(install):
    install("sslrob-third", NOISE)
    found = dict(check_plugin("sslrob_third", plugins=Plugins().load()))
    assert set(found.values()) == {None}
    title = "attack third-party-noise"
    assert set(found) == {
        "sslrob-third 0.1: listing imports no torch",
        *(f"{title}: {c}" for c in ("resolves", "settings", "contract", "strength")),
    }


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (("from dataclasses", "import torch\nfrom dataclasses"), "sslrob-third 0.1: listing imports no torch", "imports torch"),
        (("draws: random images tried", "nothing"), "attack third-party-noise: settings", "'draws' of Noise has no description"),
        (("return best.images", "return images + 0.9"), "attack third-party-noise: contract", "left the threat model"),
        (("return best.images", "return images - 2 * (images - 0.5)"), "attack third-party-noise: strength", "which no allowed image can"),
        (("return best.images", "return 1 / 0"), "attack third-party-noise: contract", "ZeroDivisionError"),
        (
            ('register("third-party-noise", Noise)', 'register("third-party-noise", "no:No")'),
            "attack third-party-noise: resolves",
            "cannot be",
        ),
        (("import hookimpl", "import no_hookimpl"), "sslrob-third 0.1: loads", "cannot import name"),
    ],
    ids=["torch", "settings", "contract", "strength", "raises", "resolves", "loads"],
)
def test_an_unsound_plugin_fails_the_right_check(install, change, check, says):
    source = NOISE.replace("Best, hookimpl", "Best\nfrom sslrob import hookimpl")
    assert change[0] in source
    install("sslrob-third", source.replace(*change))
    found = dict(check_plugin("sslrob-third", plugins=Plugins().load()))
    assert says in found[check]


def test_checks_of_what_is_not_installed():
    with pytest.raises(SslrobError, match="no plugin is named 'sslrob-thrid'"):
        checks("sslrob-thrid")
