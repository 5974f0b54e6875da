"""What a server or a site keeps: events in order, and blobs by their digest."""
