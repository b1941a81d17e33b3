"""JSON schemas from Python types and values from JSON: pure, and imported only when a schema or tool is used."""
