"""What BayesNAS's runs may be told: settings that searchers check and trainables obey."""
