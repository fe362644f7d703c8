"""AWS's list prices, in one place; and what reading takes: worker's time, and dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

CHECKED = "2025"


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices of a region in dollars, without what is free each month."""

    lambda_gb_second: float = 0.0000133334  # arm64
    lambda_request: float = 0.20 / 1e6
    s3_write: float = 0.005 / 1e3  # PUT, COPY, POST and LIST
    s3_read: float = 0.0004 / 1e3
    s3_gb_month: float = 0.023
    sqs_fifo_request: float = 0.50 / 1e6
    schedule: float = 1.00 / 1e6
    logs_gb: float = 0.50
    logs_gb_month: float = 0.03
    insights_gb: float = 0.005
    metric: float = 0.30
    alarm: float = 0.10
    dashboard: float = 3.00
    secret: float = 0.40
    secret_call: float = 0.05 / 1e4
    endpoint_hour: float = 0.01  # of an interface endpoint, in each zone
    nat_hour: float = 0.045


# As published in 2025, written down from memory: they are good for an estimate, and an invoice goes by AWS's own pages,
# https://aws.amazon.com/{lambda,s3,sqs,eventbridge,cloudwatch,secrets-manager,privatelink,vpc}/pricing
US_EAST_1 = Prices()
PRICES: Mapping[str, Prices] = {
    "us-east-1": US_EAST_1,
    "eu-west-2": Prices(
        s3_write=0.0053 / 1e3,
        s3_read=0.00042 / 1e3,
        s3_gb_month=0.024,
        logs_gb=0.5985,
        logs_gb_month=0.0315,
        insights_gb=0.0063,
        endpoint_hour=0.011,
        nat_hour=0.05,
    ),
}
"""Other regions differ by some tenths."""

# Measured with tables of 14 columns: a processor reads so much of a table a second, and writes so much of it.
BYTES_A_SECOND = 60e6
COMPRESSED = 0.25
CORE_MEGABYTES = 1769  # of memory, for which Lambda gives a whole processor
_START_SECONDS = 1.0
PART_BYTES = 8 * 2**20
# Beside the parts of its upload, a chunk takes about so many calls.
_WRITES, _READS, _MESSAGES = 5, 6, 3


def seconds_of_work(size: int, chunks: int, memory: int) -> float:
    """Return the seconds that one worker would take.

    Args:
        size: bytes on disk.
        chunks: in which they are read.
        memory: of a worker, in MiB.
    """
    return size / (BYTES_A_SECOND * min(1.0, memory / CORE_MEGABYTES)) + chunks * _START_SECONDS


def dollars(size: int, chunks: int, memory: int, prices: Prices = US_EAST_1) -> float:
    """Return what it costs on AWS to read and write; what is written costs by the month besides."""
    parts = chunks + ceil(size * COMPRESSED / PART_BYTES)
    return (
        seconds_of_work(size, chunks, memory) * memory / 1024 * prices.lambda_gb_second
        + chunks * (prices.lambda_request + _READS * prices.s3_read + _MESSAGES * prices.sqs_fifo_request)
        + (parts + chunks * _WRITES) * prices.s3_write
    )
