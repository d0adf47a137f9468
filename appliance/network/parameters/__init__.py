"""The parameter store: sealed files, uploaded by id, visible to their recipients once they are whole."""
