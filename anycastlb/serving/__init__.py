"""What a node serves over HTTP: the API, the web page and the metrics, all from one snapshot."""
