"""Running tools: whether the model may call one (`choice`), its calls (`runs`), and the turns between them (`loop`)."""
