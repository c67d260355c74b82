"""The model: Dual-HRNet, its loss, the xView2 metric, training, inference and reports."""
