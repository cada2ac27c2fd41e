-- Private VLANs: which ports of a network may reach which.
ALTER TABLE networks ADD COLUMN pvlan BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE ports ADD COLUMN pvlan_type TEXT;
ALTER TABLE ports ADD COLUMN pvlan_community TEXT;
