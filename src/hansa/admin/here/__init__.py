"""What a person does on the machine of a party: look for faults, enrol and start a site, put a whole federation up."""
