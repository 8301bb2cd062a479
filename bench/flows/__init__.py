"""The flow library beside zuko, normflows and FrEIA."""
