"""One gRPC service a file."""
