"""How Snakemake is called: what its own arguments become (acll.cli.waiting)."""

import pytest
import snakemake.cli

from acll.cli import waiting


@pytest.fixture
def called(monkeypatch):
    """What Snakemake is called with, which runs nothing."""
    found = []

    def args_to_api(parsed, parser):
        found.append(parsed)
        return True

    monkeypatch.setattr(snakemake.cli, "args_to_api", args_to_api)
    return found


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A folder with a workflow and a profile beside it."""
    (tmp_path / "profiles/default").mkdir(parents=True)
    (tmp_path / "profiles/default/config.yaml").write_text("cores: 1\n")
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    return tmp_path


def test_nothing_limits_jobs_in_a_second_unless_a_person_does(called, place):
    """Snakemake's own limit makes its scheduler look more often with each job that has ended."""
    assert waiting.run_snakemake([])
    assert waiting.run_snakemake(["--max-jobs-per-timespan=3/1s"])
    assert called[0].max_jobs_per_timespan is None
    assert called[1].max_jobs_per_timespan.max_jobs == 3


def test_only_a_profile_of_ones_own_is_named(called, place, capsys):
    waiting.run_snakemake([])
    assert capsys.readouterr().err == ""
    (place / "mine").mkdir()
    (place / "mine/config.yaml").write_text("keep-going: true\n")
    waiting.run_snakemake(["--profile=mine"])
    assert "Using profiles mine and workflow specific profile" in capsys.readouterr().err
    assert called[1].keep_going
    waiting.run_snakemake(["--workflow-profile=mine"])
    assert "Using workflow specific profile mine" in capsys.readouterr().err


def test_the_profile_beside_a_snakefile_elsewhere_is_not_named(called, place, capsys, monkeypatch):
    """As of a project of one's own, whose Snakefile lies in the installed package."""
    (place / "project").mkdir()
    monkeypatch.chdir(place / "project")
    waiting.run_snakemake([f"--snakefile={place / 'Snakefile'}"])
    assert capsys.readouterr().err == ""
    assert called[0].cores == 1


def test_what_snakemake_says_of_its_arguments_is_shown(place, capsys, caplog):
    with pytest.raises(SystemExit):
        waiting.run_snakemake(["--no-such-option"])
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err
    assert not waiting.run_snakemake(["--max-jobs-per-timespan=often"])
    assert "Invalid max jobs per timespan" in caplog.text


def test_snakemake_imports_no_pandas_to_look_for_tables_among_parameters(called, place):
    from snakemake.persistence import PersistenceBase

    assert waiting.run_snakemake([])
    assert PersistenceBase._serialize_param_pandas is PersistenceBase._serialize_param_builtin
