"""Helpers of the tests: clients, servers, and stand-ins for what lies outside."""
