"""Any module, its values rounded where arithmetic makes new ones."""
