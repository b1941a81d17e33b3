"""Tools while they are used: which the model may call, the turns of a conversation with them, and their runs."""
