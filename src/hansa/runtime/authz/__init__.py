"""Who is who in a project, and what each may do."""
