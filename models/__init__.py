"""What is learned, from arrays on: front-end, raster, network, simulator. Never imports daemon or deploy."""
