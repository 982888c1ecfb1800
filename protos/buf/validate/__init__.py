"""Rules in contracts (package buf.validate), from github.com/bufbuild/protovalidate, under the Apache License 2.0."""
