"""The offline builder: sources to tables, an encoder, vectors and an index."""
