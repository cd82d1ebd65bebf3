"""What labels and simulated curves teach: whole models (training, calibration), and the one number of a cut."""
