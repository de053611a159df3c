"""The Segment Anything Model for segmentation and classification."""
