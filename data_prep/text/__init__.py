"""Asks a multimodal model about mosaics, stores its answers and joins them to the records."""
