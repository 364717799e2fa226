"""How the application is started: settings, container, command line, wheel scripts, logging."""
