"""The library between a real PostgreSQL server and S3 as moto plays it."""
