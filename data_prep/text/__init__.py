"""Asks a multimodal model about mosaics, stores its answers and adds them to the records."""
