"""What reading takes: worker's time, and dollars at AWS's list prices."""

from __future__ import annotations

from math import ceil

# List prices of us-east-1 in dollars, 2025; other regions differ by some tenths.
# https://aws.amazon.com/lambda/pricing https://aws.amazon.com/s3/pricing https://aws.amazon.com/sqs/pricing
LAMBDA_GB_SECOND = 0.0000133334  # arm64
LAMBDA_REQUEST = 0.20 / 1e6
S3_WRITE = 0.005 / 1e3
S3_READ = 0.0004 / 1e3
SQS_FIFO_REQUEST = 0.50 / 1e6

# Measured with tables of 14 columns: a processor reads so much of a table a second, and writes so much of it.
_BYTES_A_SECOND = 60e6
_COMPRESSED = 0.25
_CORE_MEGABYTES = 1769  # of memory, for which Lambda gives a whole processor
_START_SECONDS = 1.0
_PART_BYTES = 8 * 2**20
# Beside the parts of its upload, a chunk takes about so many calls.
_WRITES, _READS, _MESSAGES = 5, 6, 3


def seconds_of_work(size: int, chunks: int, memory: int) -> float:
    """Return the seconds that one worker would take.

    Args:
        size: bytes on disk.
        chunks: in which they are read.
        memory: of a worker, in MiB.
    """
    return size / (_BYTES_A_SECOND * min(1.0, memory / _CORE_MEGABYTES)) + chunks * _START_SECONDS


def dollars(size: int, chunks: int, memory: int) -> float:
    """Return what it costs on AWS to read and write; what is written costs by the month besides."""
    parts = chunks + ceil(size * _COMPRESSED / _PART_BYTES)
    return (
        seconds_of_work(size, chunks, memory) * memory / 1024 * LAMBDA_GB_SECOND
        + chunks * (LAMBDA_REQUEST + _READS * S3_READ + _MESSAGES * SQS_FIFO_REQUEST)
        + (parts + chunks * _WRITES) * S3_WRITE
    )
