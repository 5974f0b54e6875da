"""`hansa shell`: an admin session as users of FLARE and Clara Train know it."""
