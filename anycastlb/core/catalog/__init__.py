"""From the documents of the catalog to its values, and back."""
