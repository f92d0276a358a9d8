import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from dr_assets.components.alerts import Subjects, look
from dr_assets.components.episodes import Episodes, fold

CHECK = dg.AssetCheckKey(dg.AssetKey(["ledger", "wal_chain"]), "rpo")
CHANNELS = ["webhook"]


class Flaky(dg.Config):
    """Whether the run is to fail."""

    fails: bool


@dg.op
def flaky(config: Flaky) -> None:
    """Fail when told to."""
    if config.fails:
        raise dg.Failure(description="as told")


@dg.job(executor_def=dg.in_process_executor)
def work() -> None:
    """A job that fails when told to."""
    flaky()


SUBJECTS = Subjects(checks=(CHECK,), assets=(CHECK.asset_key,), jobs=("work",))


def tick(instance: dg.DagsterInstance, episodes: Episodes) -> Episodes:
    """One look and fold, through the cursor's text as in the sensor."""
    looked, conditions = look(instance, SUBJECTS, Episodes.from_cursor(episodes.to_cursor()))
    return fold(looked, conditions, CHANNELS)


def told(episodes: Episodes) -> list[tuple[str, str]]:
    """Every notice so far; nothing was delivered yet."""
    return [(pending.notice.subject, pending.notice.status) for pending in episodes.pending]


def judge(instance: dg.DagsterInstance, *, passed: bool) -> None:
    """Record a verdict without a run."""
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=CHECK.asset_key, check_name=CHECK.name, passed=passed, description="31 s old", metadata={}
        )
    )


def run(instance: dg.DagsterInstance, *, fails: bool) -> None:
    """One run of the job."""
    config = dg.RunConfig(ops={"flaky": Flaky(fails=fails)})
    work.execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def test_a_failed_check_is_one_episode_however_often_it_is_judged(instance: dg.DagsterInstance) -> None:
    """The check's every repetition while red is the same episode; the verdict's own words are passed on."""
    episodes = tick(instance, Episodes())
    for passed in (True, False, False, False, True, True):
        judge(instance, passed=passed)
        episodes = tick(instance, episodes)
    assert told(episodes) == [("check ledger/wal_chain:rpo", "firing"), ("check ledger/wal_chain:rpo", "resolved")]
    assert episodes.pending[0].notice.detail == "31 s old"


def test_a_check_that_was_red_before_the_first_look_is_told(instance: dg.DagsterInstance) -> None:
    """A sensor that starts in the middle of an outage reports it."""
    judge(instance, passed=False)
    assert told(tick(instance, Episodes())) == [("check ledger/wal_chain:rpo", "firing")]


def test_a_check_under_way_changes_nothing(instance: dg.DagsterInstance) -> None:
    """While a run is about to judge a check, its last verdict still holds, red or green."""
    judge(instance, passed=False)
    episodes = tick(instance, Episodes())
    run = instance.create_run_for_job(work, run_config={"ops": {"flaky": {"config": {"fails": False}}}})
    planned = AssetCheckEvaluationPlanned(asset_key=CHECK.asset_key, check_name=CHECK.name)
    event = dg.DagsterEvent("ASSET_CHECK_EVALUATION_PLANNED", "work", event_specific_data=planned, step_key="flaky")
    instance.report_dagster_event(event, run.run_id)
    assert told(tick(instance, episodes)) == [("check ledger/wal_chain:rpo", "firing")]


def test_a_run_that_fails_and_a_retry_that_succeeds_between_two_looks_are_both_told(
    instance: dg.DagsterInstance,
) -> None:
    """A failure is never swallowed because something later went well; nor is it told again at the next look."""
    episodes = tick(instance, Episodes())
    run(instance, fails=True)
    run(instance, fails=False)
    episodes = tick(instance, tick(instance, tick(instance, episodes)))
    assert told(episodes) == [("job work", "firing"), ("job work", "resolved")]


def test_a_job_that_keeps_failing_is_one_episode(instance: dg.DagsterInstance) -> None:
    """Retries of a failing job do not repeat the alert."""
    episodes = tick(instance, Episodes())
    for _ in range(3):
        run(instance, fails=True)
        episodes = tick(instance, episodes)
    assert told(episodes) == [("job work", "firing")]


def test_old_failures_are_not_news(instance: dg.DagsterInstance) -> None:
    """The first look of a new sensor takes each job's newest result only, and never returns to the older ones."""
    run(instance, fails=True)
    run(instance, fails=False)
    assert told(tick(instance, tick(instance, Episodes()))) == []


def test_missed_freshness_is_told_and_so_is_its_recovery(instance: dg.DagsterInstance) -> None:
    """FAIL opens an episode, WARN and UNKNOWN neither open nor close one, PASS closes it."""
    episodes, before, counts = tick(instance, Episodes()), FreshnessState.UNKNOWN, []
    for after in (FreshnessState.WARN, FreshnessState.FAIL, FreshnessState.WARN, FreshnessState.PASS):
        change = FreshnessStateChange(
            key=CHECK.asset_key, new_state=after, previous_state=before, state_change_timestamp=1e9
        )
        instance.report_runless_asset_event(change)
        episodes, before = tick(instance, episodes), after
        counts.append(len(told(episodes)))
    assert counts == [0, 1, 1, 2]
    assert told(episodes) == [("freshness ledger/wal_chain", "firing"), ("freshness ledger/wal_chain", "resolved")]
