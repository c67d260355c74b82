"""What a network must offer, the list of those that training and prediction can choose, and all but Dual-HRNet."""
