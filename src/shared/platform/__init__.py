"""The product: its payloads, subjects and error catalogues, which the chassis never imports."""
