"""How a service's report of an error becomes an error of llmbridge: its shape, its words, and the waits it asks for."""
