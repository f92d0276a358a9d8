"""Topics and buckets: what their declarations mean, and what of them is refused."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.cli.context import bucket_of, postgres_of, topics_of
from dr_assets.estate.declarations import Finding, check_estate, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import BucketDataset, KafkaSecurity, SubjectRule, TopicsDataset
from dr_assets.estate.promises import changes, promises_of
from dr_assets.estate.transport import require_kafka_tls
from dr_assets.vault.retention import LockRules

DAY = timedelta(days=1)
ESTATE = """\
type: dr_assets.components.ProtectedEstate
attributes:
  estate: casino
  licence: {authority: MGA, jurisdictions: [MT, FR, DE]}
  vaults:
    primary:
      location: {provider: ovh, region: gra, jurisdiction: FR}
      bucket: vault-a
      endpoint_env: A_ENDPOINT
      access_key_env: A_ACCESS
      secret_key_env: A_SECRET
    standby:
      location: {provider: hetzner, region: fsn1, jurisdiction: DE}
      bucket: vault-b
      endpoint_env: B_ENDPOINT
      access_key_env: B_ACCESS
      secret_key_env: B_SECRET
  keys: {dir_env: KEYS, trust_file_env: TRUST, signing_key_env: SIGNER}
  subjects: {vaults: [primary, standby], bucket: people-keys, id_key_env: PEOPLE}
  owners: ["team:platform"]
"""
SECURITY = (
    "{protocol: SASL_SSL, mechanism: SCRAM-SHA-512, username_env: USER_X, password_env: PASS_X, ca_file_env: CA_X}"
)
TOPICS = f"""\
type: dr_assets.components.ProtectedTopics
attributes:
  dataset: game_events
  tier: game_event_stream
  bootstrap_env: BOOTSTRAP
  topics: ["game.*", wallet.settlements]
  exclude: ["game.debug*"]
  security: {SECURITY}
  retention: {{lock: compliance, days: 30}}
  location: {{provider: ovh, region: waw, jurisdiction: MT}}
  replicas: [standby]
  restore_test: {{cron: "30 3 * * *"}}
  drill: {{cron: "30 4 1 * *", overdue_after: 35d}}
  owners: ["team:platform"]
"""
BUCKET = """\
type: dr_assets.components.ProtectedBucket
attributes:
  dataset: kyc
  tier: kyc_aml
  bucket: kyc-documents
  endpoint_env: KYC_ENDPOINT
  access_key_env: KYC_ACCESS
  secret_key_env: KYC_SECRET
  subject: {kind: key, pattern: "^players/(?P<subject>[^/]+)/"}
  retention: {lock: compliance, days: 30}
  location: {provider: ovh, region: waw, jurisdiction: MT}
  replicas: [standby]
  restore_test: {cron: "45 3 * * *"}
  drill: {cron: "45 4 1 * *", overdue_after: 35d}
  owners: ["team:platform"]
"""


def declare(folder: Path, **texts: str) -> Path:
    """Write one defs.yaml per name."""
    for name, text in ({"estate": ESTATE} | texts).items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "defs.yaml").write_text(text)
    return folder


def changed(text: str, old: str, new: str) -> str:
    """The sample with its one `old` replaced."""
    assert text.count(old) == 1, f"{old!r} must name one place of the sample"
    return text.replace(old, new)


def shown(findings: list[Finding]) -> list[tuple[str, int, str]]:
    """Folder, line and code: what a person looks for first."""
    return [(finding.path.parent.name, finding.line, finding.code) for finding in findings]


def test_topics_are_accepted_with_the_tiers_objectives(tmp_path: Path) -> None:
    """Game events: 2 min and 30 min by default, every variable named, patterns kept as they were written."""
    estate = load_estate(declare(tmp_path, events=TOPICS, kyc=BUCKET))
    events = estate.topics()["game_events"]
    assert isinstance(events, TopicsDataset)
    assert (events.kind, events.rpo, events.rto) == ("kafka", timedelta(minutes=2), timedelta(minutes=30))
    assert events.security == KafkaSecurity("SASL_SSL", "CA_X", "SCRAM-SHA-512", "USER_X", "PASS_X")
    assert (events.linger, events.compacted_every, events.groups) == (timedelta(milliseconds=500), 7 * DAY, ("*",))
    assert {"BOOTSTRAP", "CA_X", "USER_X", "PASS_X"} <= set(estate.env_names())
    assert "game_events" not in estate.postgres()
    assert "game_events" not in estate.buckets()


def test_a_bucket_is_accepted_with_the_tiers_objectives(tmp_path: Path) -> None:
    """KYC documents: 15 min and 1 h by default, compared every 5 minutes, a whole inventory weekly."""
    estate = load_estate(declare(tmp_path, kyc=BUCKET))
    kyc = estate.buckets()["kyc"]
    assert isinstance(kyc, BucketDataset)
    assert (kyc.kind, kyc.rpo, kyc.rto) == ("bucket", timedelta(minutes=15), timedelta(hours=1))
    assert (kyc.copy_every, kyc.full_every, kyc.prefix) == (timedelta(minutes=5), 7 * DAY, "")
    assert kyc.subject == SubjectRule("key", "^players/(?P<subject>[^/]+)/", None)
    assert {"KYC_ENDPOINT", "KYC_ACCESS", "KYC_SECRET"} <= set(estate.env_names())


def test_locks_hold_for_as_long_as_something_new_needs_the_old(tmp_path: Path) -> None:
    """The retention, the interval of new beginnings and a week: whatever the kind of source is."""
    full = changed(BUCKET, "  subject:", "  full_every: 2d\n  subject:")
    events = changed(TOPICS, "  exclude:", "  compacted_every: 3d\n  exclude:")
    rules = LockRules.of(load_estate(declare(tmp_path, events=events, kyc=full)))
    assert rules.length("game_events", "part") == (30 + 3 + 7) * DAY
    assert rules.length("kyc", "manifest") == (30 + 2 + 7) * DAY


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ("bootstrap_env: BOOTSTRAP", "bootstrap_env: BOOTSTRAP\n  rpo: 3m", 6, "policy.rpo"),
        ("bootstrap_env: BOOTSTRAP", "bootstrap_env: BOOTSTRAP\n  rto: 31m", 6, "policy.rto"),
        ("bootstrap_env: BOOTSTRAP", "bootstrap_env: broker:9092", 5, "policy.value"),
        ("bootstrap_env: BOOTSTRAP", "bootstrap_env: BOOTSTRAP\n  linger: 2m", 6, "policy.linger"),
        ("bootstrap_env: BOOTSTRAP", "bootstrap_env: BOOTSTRAP\n  linger: 5s", None, None),
        ("bootstrap_env: BOOTSTRAP", "bootstrap_env: BOOTSTRAP\n  dsn_env: X", 6, "policy.unknown_key"),
        ('["game.*", wallet.settlements]', "[]", 6, "policy.value"),
        ('["game.*", wallet.settlements]', "[a b]", 6, "policy.value"),
        ('["game.*", wallet.settlements]', "[a, a]", 6, "policy.value"),
        ('["game.debug*"]', "[wallet.settlements]", 6, "policy.topics"),
        ("mechanism: SCRAM-SHA-512, ", "", 8, "policy.kafka_security"),
        ("username_env: USER_X, ", "", 8, "policy.kafka_security"),
        ("password_env: PASS_X, ", "", 8, "policy.kafka_security"),
        ("mechanism: SCRAM-SHA-512", "mechanism: GSSAPI", 8, "policy.value"),
        ("protocol: SASL_SSL", "protocol: SSL", 8, "policy.kafka_security"),
        ("protocol: SASL_SSL", "protocol: SASL_PLAINTEXT", 8, "policy.kafka_security"),
        ("region: waw", "region: FSN1", None, None),
        ("provider: ovh, region: waw", "provider: Hetzner, region: FSN1", 11, "policy.failure_domain"),
        ("jurisdiction: MT", "jurisdiction: US", 10, "policy.jurisdiction"),
        ("30 3 * * *", "30 3 * *", 12, "policy.cron"),
        ("days: 30", "days: 4377", 9, "policy.lock_cap"),
        ("dataset: game_events", "dataset: log", 3, "policy.reserved_name"),
    ],
)
def test_refusals_of_topics(tmp_path: Path, old: str, new: str, line: int | None, code: str | None) -> None:
    """What topics may not ask for is refused at the line to change; a harmless change is not."""
    findings = check_estate(declare(tmp_path, events=changed(TOPICS, old, new)))
    assert {found for found in shown(findings) if found[2] == code} == ({("events", line, code)} if line else set())
    assert bool(findings) == (line is not None)


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ("  subject:", "  rpo: 16m\n  subject:", 9, "policy.rpo"),
        ("  subject:", "  copy_every: 15m\n  subject:", 9, "policy.copy_every"),
        ("  subject:", "  rpo: 10m\n  copy_every: 10m\n  subject:", 10, "policy.copy_every"),
        ("  subject:", "  copy_every: 14m\n  subject:", None, None),
        ("  subject:", "  linger: 15m\n  subject:", 9, "policy.linger"),
        ("  subject:", "  full_every: 1m\n  subject:", 9, "policy.full_every"),
        ("  subject:", "  prefix: /kyc\n  subject:", 9, "policy.value"),
        ("(?P<subject>[^/]+)", "([^/]+)", 9, "policy.subject"),
        ("(?P<subject>[^/]+)", "(?P<subject>[^/]+", 9, "policy.subject"),
        (', pattern: "^players/(?P<subject>[^/]+)/"', "", 9, "policy.subject"),
        ('kind: key, pattern: "^players/(?P<subject>[^/]+)/"', "kind: tag", 9, "policy.subject"),
        ('kind: key, pattern: "^players/(?P<subject>[^/]+)/"', "kind: tag, name: player", None, None),
        ('kind: key, pattern: "^players/(?P<subject>[^/]+)/"', "kind: metadata, name: player", None, None),
        ('kind: key, pattern: "^players/(?P<subject>[^/]+)/"', "kind: none", None, None),
        ("kind: key", "kind: none", 9, "policy.subject"),
        ('  subject: {kind: key, pattern: "^players/(?P<subject>[^/]+)/"}\n', "", 2, "policy.missing"),
        ("endpoint_env: KYC_ENDPOINT", "endpoint_env: http://s3.example.net", 6, "policy.transport"),
        ("bucket: kyc-documents\n  endpoint_env: KYC_E", "bucket: vault-a\n  endpoint_env: A_E", 5, "policy.bucket"),
        (
            "bucket: kyc-documents\n  endpoint_env: KYC_E",
            "bucket: people-keys\n  endpoint_env: B_E",
            5,
            "policy.bucket",
        ),
        ("provider: ovh, region: waw", "provider: hetzner, region: fsn1", 12, "policy.failure_domain"),
    ],
)
def test_refusals_of_a_bucket(tmp_path: Path, old: str, new: str, line: int | None, code: str | None) -> None:
    """What a bucket may not ask for is refused at the line to change; a harmless change is not."""
    findings = check_estate(declare(tmp_path, kyc=changed(BUCKET, old, new)))
    assert {found for found in shown(findings) if found[2] == code} == ({("kyc", line, code)} if line else set())
    assert bool(findings) == (line is not None)


def test_peoples_documents_need_the_ring_of_their_keys(tmp_path: Path) -> None:
    """Without `subjects` only a bucket of nobody's documents is accepted."""
    ringless = changed(
        ESTATE, "  subjects: {vaults: [primary, standby], bucket: people-keys, id_key_env: PEOPLE}\n", ""
    )
    assert shown(check_estate(declare(tmp_path, estate=ringless, kyc=BUCKET))) == [("kyc", 9, "policy.subject")]
    nobodys = changed(BUCKET, 'kind: key, pattern: "^players/(?P<subject>[^/]+)/"', "kind: none")
    assert check_estate(declare(tmp_path, estate=ringless, kyc=nobodys)) == []


def test_a_name_is_one_datasets_whatever_its_kind(tmp_path: Path) -> None:
    """Topics and a bucket of one name would share their asset keys and their folder in the vault."""
    twin = changed(BUCKET, "dataset: kyc", "dataset: game_events")
    assert shown(check_estate(declare(tmp_path, events=TOPICS, twin=twin))) == [("twin", 3, "policy.dataset_twice")]


@pytest.mark.parametrize(
    ("name", "captured"),
    [("game.bets", True), ("game.", True), ("game", False), ("game.debug.x", False), ("gameXbets", False),
     ("wallet.settlements", True), ("xwallet.settlements", False)],
)  # fmt: skip
def test_only_an_asterisk_has_a_meaning_of_its_own(tmp_path: Path, name: str, captured: bool) -> None:
    """A dot is a dot, patterns hold for whole names, and what is excluded stays out."""
    assert load_estate(declare(tmp_path, events=TOPICS)).topics()["game_events"].covers(name) is captured


@pytest.mark.parametrize(
    ("bootstrap", "is_encrypted", "allowed"),
    [("127.0.0.1:9092", False, True), ("localhost:9092,[::1]:9093", False, True), ("broker.example:9092", True, True),
     ("broker.example:9092", False, False), ("127.0.0.1:9092,10.0.0.7:9092", False, False), ("", True, False)],
)  # fmt: skip
def test_brokers_beyond_loopback_need_tls(bootstrap: str, is_encrypted: bool, allowed: bool) -> None:
    """One broker in the open is enough to be refused; the message names the host."""
    if allowed:
        require_kafka_tls(bootstrap, is_encrypted=is_encrypted)
        return
    with pytest.raises(PolicyError) as refused:
        require_kafka_tls(bootstrap, is_encrypted=is_encrypted)
    assert refused.value.code == "policy.transport"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"game.*", ', "", "game_events.topics"),
        ('["game.debug*"]', '["game.debug*", x]', "game_events.exclude"),
        ("  exclude:", "  groups: [a]\n  exclude:", "game_events.groups"),
        ("  exclude:", "  compacted_every: 8d\n  exclude:", "game_events.compacted_every_ms"),
        (SECURITY, "{protocol: PLAINTEXT}", "game_events.kafka_protocol"),
    ],
)  # fmt: skip
def test_promises_of_topics_know_what_is_weaker(tmp_path: Path, old: str, new: str, what: str) -> None:
    """Fewer topics or groups, more left out, rarer exports, clear text: weaker, and the other way round not."""
    strong = promises_of(load_estate(declare(tmp_path, events=TOPICS)))
    weak = promises_of(load_estate(declare(tmp_path, events=changed(TOPICS, old, new))))
    assert [(one.what, one.is_weaker) for one in changes(strong, weak)] == [(what, True)]
    assert [one.is_weaker for one in changes(weak, strong)] == [False]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('kind: key, pattern: "^players/(?P<subject>[^/]+)/"', "kind: none", "kyc.subject"),
        ("  subject:", "  copy_every: 6m\n  subject:", "kyc.copy_every_ms"),
        ("  subject:", "  full_every: 8d\n  subject:", "kyc.full_every_ms"),
    ],
)
def test_promises_of_a_bucket_know_what_is_weaker(tmp_path: Path, old: str, new: str, what: str) -> None:
    """Nobody's documents, rarer comparisons and inventories: weaker, and the other way round not."""
    strong = promises_of(load_estate(declare(tmp_path, kyc=BUCKET)))
    weak = promises_of(load_estate(declare(tmp_path, kyc=changed(BUCKET, old, new))))
    assert [(one.what, one.is_weaker) for one in changes(strong, weak)] == [(what, True)]
    assert [one.is_weaker for one in changes(weak, strong)] == [False]


@pytest.mark.parametrize(("look", "name"), [(postgres_of, "kyc"), (topics_of, "kyc"), (bucket_of, "game_events")])
def test_a_verb_for_another_kind_says_what_it_is_for(tmp_path: Path, look: Any, name: str) -> None:
    """A database's verb on a bucket is a mistake of the command line, told with what would fit."""
    with pytest.raises(PolicyError) as refused:
        look(load_estate(declare(tmp_path, events=TOPICS, kyc=BUCKET)), name)
    assert refused.value.code == "cli.wrong_kind"
