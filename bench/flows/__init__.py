"""The library of flows beside zuko, normflows and FrEIA, which the extra `bench` installs."""
