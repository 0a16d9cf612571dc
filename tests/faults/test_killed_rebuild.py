"""A rebuild killed at random instants while others write and read. (In work.)"""
