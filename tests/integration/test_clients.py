"""Clients of AWS's services: made with whatever credentials there are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import SSOTokenLoadError

from tests.conftest import REGION
from tidelog.clients import Clients

CONFIG = f"""
[profile keys]
aws_access_key_id = a
aws_secret_access_key = b
[profile role]
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = keys
[profile web]
role_arn = arn:aws:iam::123456789012:role/reader
web_identity_token_file = {{token}}
[profile sso]
sso_start_url = https://example.awsapps.com/start
sso_region = {REGION}
sso_account_id = 123456789012
sso_role_name = reader
"""


@pytest.fixture
def clients(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """The clients of a program that has a profile and no keys in its environment."""
    token, config = tmp_path / "token", tmp_path / "config"
    token.write_text("token", "ascii")
    config.write_text(CONFIG.format(token=token), "ascii")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_PROFILE", request.param)
    return Clients()


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("clients", ["keys", "role", "web"], indirect=True)
def test_a_profile_may_hold_keys_or_name_a_role(clients: Clients) -> None:
    """By keys or by a token, as in a pod: STS gives the credentials."""
    assert "Buckets" in clients["s3"].list_buckets()


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("clients", ["sso"], indirect=True)
def test_who_has_not_signed_in_is_told_that(clients: Clients) -> None:
    """Single sign-on needs a client too; nothing is said of services that are not known."""
    with pytest.raises(SSOTokenLoadError):
        clients["s3"].list_buckets()


@pytest.mark.parametrize("clients", ["keys"], indirect=True)
def test_a_client_is_made_once_whoever_needs_it_first(clients: Clients) -> None:
    """Threads that send messages may be the first to need SQS, all at once."""
    later = clients.later("sqs")
    with ThreadPoolExecutor(8) as pool:
        assert len({id(meta) for meta in pool.map(lambda _: later.meta, range(64))}) == 1
