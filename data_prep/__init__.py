"""Raw data to records: one command per dataset, and commands for text features and for looking at records."""
