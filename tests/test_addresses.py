"""Nothing secret stands in an address that is used, and nothing of one that is refused is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.addresses import check_address, redacted, without_secrets
from tips_dist.files import UserError


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/runs",
        "s3://bucket/runs?region=eu-west-1&endpoint_override=http://127.0.0.1:9000",
        "gs://bucket/a%20b",
        "abfss://container@account.dfs.core.windows.net/runs",
        "sftp://user@host:22/runs",
        "hdfs://host:9000/runs?user=me&replication=2",
        "file:///tmp/x",
        "memory://runs",
        "s3://[::1]:9000/x",
    ],
)
def test_addresses_without_secrets_pass(text: str) -> None:
    check_address(text)


SECRET = "hunter2SECRET"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://AKIA:{SECRET}@bucket/runs",
        f"s3://{SECRET}@bucket/runs",
        f"s3://a:{SECRET}@b@bucket/runs",
        f"s3://AKIA:{SECRET}%40@bucket/runs",
        f"abfss://container:{SECRET}@account/runs",
        f"sftp://user:{SECRET}@host/runs",
        f"postgresql://user:{SECRET}@host/db",
        f"https://host/x?sig={SECRET}",
        f"https://host/x?sv=2024&sig={SECRET}&se=1",
        f"https://host/x?token={SECRET}",
        f"https://host/x?X-Amz-Credential=AKIA&X-Amz-Signature={SECRET}",
        f"s3://bucket/x?access_key=AKIA&secret_key={SECRET}",
        f"s3://bucket/x?{SECRET}",
        f"s3://bucket/x?region=eu&{SECRET}",
        f"s3://bucket/x?endpoint_override=http://me:{SECRET}@host",
        f"gs://bucket/x#{SECRET}",
        f"simplecache::s3://a:{SECRET}@bucket/x",
        f"s3://bucket/http://a:{SECRET}@host/",
        f"S3://a:{SECRET}@bucket/",
        f"s3://a:{SECRET}@[bucket/",
        f" s3://a:{SECRET}@bucket/",
    ],
)
def test_credentials_of_any_form_are_refused_unseen(text: str) -> None:
    with pytest.raises(UserError, match="--storage") as caught:
        check_address(text, "--storage")
    assert SECRET not in str(caught.value)
    assert SECRET not in redacted(text)


@pytest.mark.parametrize(
    "text", ["", "://", "s3:/bucket", "s3://a b", "s3://a\n/b", "s3://a\x1b[31m/b", "s3://h:port/x", "s3://["]
)
def test_what_is_no_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        check_address(text)
    assert "\n" not in str(caught.value)


def test_messages_of_others_lose_their_secrets() -> None:
    said = without_secrets(
        f"cannot connect to postgresql://me:{SECRET}@host/db?password={SECRET} (or s3://b/x?a={SECRET})"
    )
    assert SECRET not in said
    assert "postgresql://…@host/db?…" in said


WORD = st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=12)


@given(WORD, WORD, WORD, WORD)
def test_whatever_passes_has_neither_password_nor_unknown_options(
    user: str, password: str, host: str, rest: str
) -> None:
    for text in (f"s3://{user}:{password}@{host}/{rest}", f"s3://{host}/{rest}?{user}={password}", f"{user}://{rest}"):
        redacted(text)
        try:
            parts = check_address(text)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert parts.password is None
            assert not parts.fragment
