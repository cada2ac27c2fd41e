-- How a row was changed, and whose it is: a deleted one cannot be asked any more.
ALTER TABLE changes ADD COLUMN how TEXT NOT NULL DEFAULT 'changed';
ALTER TABLE changes ADD COLUMN project_id TEXT NOT NULL DEFAULT '';
