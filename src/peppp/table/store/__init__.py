"""Store measurements in a database that many workers share."""
