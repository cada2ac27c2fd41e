-- Where the numbers of a kind of segments begin and end, and which of them are in use.
CREATE INDEX network_segments_number ON network_segments (network_type, physical_network, segmentation_id);
