-- Words that callers hang on resources: a JSON list, in order.
ALTER TABLE networks ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE subnets ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE ports ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE routers ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE floating_ips ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE security_groups ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE security_group_rules ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
