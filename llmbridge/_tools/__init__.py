"""Tools at work: whether the model may call one (`choice`), its calls (`runs`), what they give (`values`), and the
turns of the conversation between them (`loop`).
"""
